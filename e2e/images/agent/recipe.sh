# shellcheck shell=bash
# How the agent's image is made: a Debian with what agents use, and Claude Code. It knows nothing of Chaperone. Sourced by
# ../build; it is built anew when a file in this folder changes.

build_agent() {
  local archive=$1 container mount
  [ ! -f "$archive" ] || return 0
  container=$(buildah from scratch)
  mount=$(buildah mount "$container")
  mapfile -t sources < <(debian_sources)
  # shellcheck disable=SC1091 # the machine's own description of itself
  mmdebstrap --mode=root --variant=minbase --format=directory --skip=output/dev \
    --include="$(paste -s -d , "$IMAGES/agent/packages")" --aptopt='APT::Install-Recommends "false"' \
    --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/man/*/*' \
    --dpkgopt='path-exclude=/usr/share/locale/*' \
    "$(. /etc/os-release && echo "$VERSION_CODENAME")" "$mount" "${sources[@]}"
  add_claude_code "$mount"
  javac --release 17 -d "$mount/opt/java" "$IMAGES/agent/Get.java"
  buildah unmount "$container" >/dev/null
  buildah config --env PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin --env LANG=C.UTF-8 \
    --workingdir /root --cmd '["bash"]' "$container"
  commit_image "$container" agent 1 "$archive"
}

# The files that say where this machine gets Debian or Ubuntu from; without any, mmdebstrap's defaults hold.
debian_sources() {
  local file
  for file in /etc/apt/sources.list /etc/apt/sources.list.d/debian.sources /etc/apt/sources.list.d/ubuntu.sources; do
    [ ! -s "$file" ] || echo "$file"
  done
}

add_claude_code() {
  mkdir -p "$1/opt/claude-code"
  cp "$IMAGES/agent/package.json" "$IMAGES/agent/package-lock.json" "$1/opt/claude-code/"
  npm ci --prefix "$1/opt/claude-code" --cache "$STORE/npm" --ignore-scripts --no-audit --no-fund
  # Puts the native program in place of the package's stub; not every npm runs install scripts unasked.
  node "$1/opt/claude-code/node_modules/@anthropic-ai/claude-code/install.cjs"
  ln -s /opt/claude-code/node_modules/.bin/claude "$1/usr/local/bin/claude"
}
