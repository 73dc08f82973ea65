# shellcheck shell=bash
# Takes the cluster down, from any state that an interrupted `up`, a crash or a `kill -9` can leave. Sourced after lib.sh.
# Nothing of the cluster is worth a graceful stop: its state is thrown away.

tear_down() {
  refuse_foreign_state
  end_processes
  restore_kernel_settings
  discard_images
  unmount_all
  remove_namespaces
  remove_cgroups
  remove_traces
  remove_state
}

# something_is_left: whether there is anything for tear_down to do.
something_is_left() {
  [ -e "$STATE" ] || [ -e "/run/netns/$NODE_NETNS" ] || [ -e "/run/netns/$INET_NETNS" ] || [ -d "$(tracking_cgroup)" ]
}

# All processes in our cgroup and in our network namespaces, whoever started them.
our_processes() {
  local name
  {
    find "$(tracking_cgroup)" -name cgroup.procs -exec cat {} + || true
    for name in "$NODE_NETNS" "$INET_NETNS"; do
      [ ! -e "/run/netns/$name" ] || ip netns pids "$name" || true
    done
  } 2>/dev/null | sort -un | { grep -vx "$$" || true; }
}

end_processes() {
  local pids=() attempt
  # The kubelet first: it would start again what ends.
  ! is_running kubelet || kill -KILL "$(cat "$STATE/pid/kubelet")" 2>/dev/null || true
  for attempt in {1..100}; do
    mapfile -t pids < <(our_processes)
    [ ${#pids[@]} -gt 0 ] || return 0
    kill -KILL "${pids[@]}" 2>/dev/null || true
    sleep 0.1
  done
  die "these processes do not end after $attempt attempts: ${pids[*]}"
}

# The kubelet changes these for the whole machine; `up` wrote down what they were.
restore_kernel_settings() {
  [ ! -s "$STATE/sysctl" ] || sysctl -q -p "$STATE/sysctl" || true
}

# Before the overlays are unmounted: that would first write the images to the disk, which can take half a minute.
discard_images() {
  local root=$STATE/containerd/root
  rm -rf "$root/io.containerd.content.v1.content" "$root/io.containerd.snapshotter.v1.overlayfs"
}

unmount_all() {
  local mount
  # The last mounted first.
  awk -v state="$STATE/" 'index($2, state) == 1 { print $2 }' /proc/self/mounts | tac | while read -r mount; do
    umount "$mount" 2>/dev/null || umount -l "$mount"
  done
}

remove_namespaces() {
  local name
  for name in "$NODE_NETNS" "$INET_NETNS"; do
    [ ! -e "/run/netns/$name" ] || ip netns delete "$name" 2>/dev/null || rm -f "/run/netns/$name"
  done
  # `ip netns add` made this folder a mount; it comes back when somebody needs it.
  if [ -d /run/netns ] && [ -z "$(ls -A /run/netns)" ]; then
    umount /run/netns 2>/dev/null || true
    rmdir /run/netns 2>/dev/null || true
  fi
}

remove_cgroups() {
  local root attempt
  for root in $(cgroup_roots); do
    for attempt in {1..50}; do
      [ -d "$root" ] || break
      find "$root" -depth -type d -exec rmdir {} + 2>/dev/null || sleep 0.1
    done
    [ ! -d "$root" ] || say "the cgroup $root is still in use after $attempt attempts"
  done
}

# What containerd, CNI and the kubelet write to fixed places. Only what is ours or plainly dead is removed.
remove_traces() {
  local file id
  for file in /run/containerd/s/* /var/lib/kubelet/device-plugins/kubelet.sock; do
    [ ! -S "$file" ] || grep -qF "$file" /proc/net/unix || rm -f "$file"
  done
  [ -S /var/lib/kubelet/device-plugins/kubelet.sock ] || rm -f /var/lib/kubelet/device-plugins/kubelet_internal_checkpoint
  for file in /var/lib/cni/results/"$CGROUP"-*; do
    id=${file#*/"$CGROUP"-}
    rm -f "$file" "/var/lib/cni/results/cni-loopback-${id%-*}-lo"
  done
  [ ! -d /var/log/containers ] || find /var/log/containers -lname "$STATE/*" -delete
  rmdir /run/containerd/s /run/containerd /var/lib/cni/results /var/lib/cni /var/log/containers \
    /var/lib/kubelet/device-plugins /var/lib/kubelet 2>/dev/null || true
}

# Neither a folder that somebody else made, nor the cluster of another CHAPERONE_STATE.
refuse_foreign_state() {
  local other
  [ ! -e "$STATE" ] || [ -f "$STATE/$STATE_MARK" ] || die "$STATE was not made by e2e/cluster/up: set CHAPERONE_STATE to a folder that does not exist"
  other=$(cat "$CACHE/state" 2>/dev/null) || return 0
  [ "$other" = "$STATE" ] || [ ! -f "$other/$STATE_MARK" ] || die "the cluster that is up has its state in $other: set CHAPERONE_STATE=$other"
}

remove_state() {
  # A mount that stayed may show a folder of the machine itself.
  ! grep -qF " $STATE/" /proc/self/mounts || die "mounts are left under $STATE: see /proc/mounts"
  rm -rf --one-file-system "$STATE"
  rm -f "$CACHE/state"
}
