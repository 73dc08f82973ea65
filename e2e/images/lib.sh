# shellcheck shell=bash
# shellcheck disable=SC2030,SC2031 # with_store is a subshell, so that its clean-up always runs
# Builds images with buildah into OCI archives in the cache folder, named by a hash of what went into them.
# Sourced; needs ../cluster/lib.sh, which it sources itself.

IMAGES=${BASH_SOURCE[0]%/*}
IMAGES=$(cd "$IMAGES" && pwd)
# shellcheck source-path=SCRIPTDIR source=../cluster/lib.sh
. "$IMAGES/../cluster/lib.sh"

ARCHIVES=$CACHE/images

# Images are called docker.io/local/NAME:TAG; with the full name containerd finds them without a registry.
image_name() { echo "docker.io/local/$1:${2:-1}"; }

# Each build has a store of its own in a temporary folder, so that nothing stays in /var/lib/containers.
buildah() { command buildah --root "$STORE/root" --runroot "$STORE/run" --storage-driver vfs "$@"; }

# with_store LABEL COMMAND...: runs COMMAND with STORE naming an empty folder, which is removed afterwards. One script at
# a time does so under one LABEL.
with_store() (
  label=$1
  shift
  take_lock "image-$label"
  for STORE in "$CACHE/.image-$label"-*; do
    [ ! -d "$STORE" ] || remove_store
  done
  STORE=$(mktemp -d "$CACHE/.image-$label-XXXXXX")
  trap 'remove_store' EXIT
  "$@"
)

remove_store() {
  awk -v store="$STORE/" 'index($2, store) == 1 { print $2 }' /proc/self/mounts | tac | xargs -r -n 1 umount -l
  rm -rf --one-file-system "$STORE"
}

# hash_of FILE-OR-TEXT...: 12 hex digits over the bytes of the files, and over the words that are no files.
hash_of() {
  local item
  for item; do
    if [ -f "$item" ]; then sha256sum <"$item"; else echo "$item"; fi
  done | sha256sum | cut -c 1-12
}

# commit_image CONTAINER NAME TAG ARCHIVE: the archive appears when it is whole; older ones of that image go.
commit_image() {
  mkdir -p "$ARCHIVES"
  buildah commit --quiet --disable-compression --timestamp 0 "$1" "oci-archive:$STORE/archive.tar:$(image_name "$2" "$3")" >/dev/null
  rm -f "$ARCHIVES/$2-$3"-*.tar
  mv "$STORE/archive.tar" "$4"
}

# image_from_scratch NAME BINARY [--cap CAPABILITIES] [--user UID] [--tag TAG]: an image of one static binary, /NAME.
# CAPABILITIES are file capabilities as setcap writes them (cap_net_admin+ep). Prints the path of the archive.
image_from_scratch() {
  local name=$1 binary=$2 capabilities="" user=65532 tag=1 archive
  shift 2
  while [ $# -gt 0 ]; do
    case $1 in
      --cap) capabilities=$2 ;;
      --user) user=$2 ;;
      --tag) tag=$2 ;;
      *) die "image_from_scratch: unknown option $1" ;;
    esac
    shift 2
  done
  [ -f "$binary" ] || die "there is no binary $binary for the image $name: build it first"
  archive=$ARCHIVES/$name-$tag-$(hash_of "$binary" "$capabilities" "$user" "$IMAGES/lib.sh").tar
  [ -f "$archive" ] || with_store "$name" build_from_scratch "$name" "$binary" "$capabilities" "$user" "$tag" "$archive" >&2
  echo "$archive"
}

build_from_scratch() {
  local name=$1 binary=$2 capabilities=$3 user=$4 tag=$5 archive=$6 container mount
  [ ! -f "$archive" ] || return 0
  container=$(buildah from scratch)
  mount=$(buildah mount "$container")
  install -m 755 "$binary" "$mount/$name"
  [ -z "$capabilities" ] || setcap "$capabilities" "$mount/$name"
  touch -d @0 "$mount/$name"
  buildah unmount "$container" >/dev/null
  buildah config --user "$user:$user" --entrypoint "[\"/$name\"]" "$container"
  commit_image "$container" "$name" "$tag" "$archive"
  say "image $(image_name "$name" "$tag"): $(du -h "$archive" | cut -f 1)"
}
