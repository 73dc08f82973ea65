# shellcheck shell=bash
# shellcheck disable=SC2034 # most of these names are used by the scripts that source this
# Names, paths and small tools that the scripts of the development cluster share. Sourced, never run.
#
# Everything that a running cluster owns can be found without having been written down: its processes sit in
# the cgroup $CGROUP or in one of the two network namespaces, its mounts lie under $STATE, its files in $STATE.
# That is what lets `down` clean up after an `up` that was killed half-way.

# `sudo` and `su` leave these out.
PATH=$PATH:/usr/local/go/bin:/usr/sbin:/sbin

HERE=${BASH_SOURCE[0]%/*}
HERE=$(cd "$HERE" && pwd)

NODE_NETNS=chaperone-node # the network namespace of the node: API server, kubelet, pods
INET_NETNS=chaperone-inet # the network namespace that plays the internet
CGROUP=chaperone-e2e      # the cgroup of the daemons (system/) and of the pods (kubepods/)
NODE_NAME=node1

NODE_IP=198.18.0.1 NODE_IP6=fd00:198::1
INET_IP=198.18.0.2 INET_IP6=fd00:198::2
POD_CIDR=10.244.0.0/24 POD_CIDR6=fd00:244::/64
SERVICE_CIDR=10.96.0.0/16 SERVICE_CIDR6=fd00:96::/112
KUBERNETES_SERVICE_IP=10.96.0.1 DNS_SERVICE_IP=10.96.0.10

CACHE=$(realpath -m "${CHAPERONE_CACHE:-${XDG_CACHE_HOME:-${HOME:-/root}/.cache}/chaperone}")

# The state goes to /run unless that is memory: images unpacked there take more than a gigabyte.
default_state() {
  if [ "$(stat -f -c %T /run)" = tmpfs ]; then
    echo /var/lib/chaperone-e2e
  else
    echo /run/chaperone-e2e
  fi
}
STATE=$(realpath -m "${CHAPERONE_STATE:-$(default_state)}")
STATE_MARK=.chaperone-e2e # a file in $STATE that says it is ours to remove
CONTAINERD_SOCKET=$STATE/containerd.sock

# --- talking to the person ---------------------------------------------------------------------------------

say() { echo "$*" >&2; }

die() {
  say "$*"
  exit 1
}

# step TEXT LOG COMMAND...: runs COMMAND with its output in LOG and shows TEXT with the time that has passed.
# When COMMAND fails, shows the end of LOG and ends the script.
step() {
  local text=$1 log=$2 ticker worker started=$SECONDS status=0
  shift 2
  ticking "$text" &
  ticker=$!
  # In the background, because `COMMAND || ...` would switch errexit off inside COMMAND.
  ("$@") >"$log" 2>&1 </dev/null &
  worker=$!
  wait "$worker" || status=$?
  kill "$ticker" 2>/dev/null || true
  wait "$ticker" 2>/dev/null || true
  [ ! -t 2 ] || printf '\r\033[K' >&2
  if [ "$status" -ne 0 ]; then
    tail -n 30 "$log" >&2
    die "$text: failed after $((SECONDS - started)) s; the whole output is in $log"
  fi
  say "$text ... $((SECONDS - started)) s"
}

ticking() {
  local began=$SECONDS
  if [ -t 2 ]; then
    while :; do
      printf '\r%s ... %d s' "$1" "$((SECONDS - began))" >&2
      sleep 1 >/dev/null 2>&1
    done
  fi
  say "$1 ..."
  # A sleep that outlives the ticker must not hold the pipe that this script writes to.
  while sleep 30 >/dev/null 2>&1; do
    say "$1 ... $((SECONDS - began)) s"
  done
}

# wait_until SECONDS WHAT DAEMON COMMAND...: polls COMMAND until it succeeds. Ends the script with a sentence and the end of
# the daemon's log when that takes too long or the daemon has died.
wait_until() {
  local limit=$1 what=$2 daemon=$3 began=$SECONDS
  shift 3
  until "$@" >/dev/null 2>&1; do
    if [ "$SECONDS" -ge $((began + limit)) ] || { [ "$SECONDS" -ge $((began + 2)) ] && ! is_running "$daemon"; }; then
      tail -n 20 "$STATE/log/$daemon.log" >&2
      is_running "$daemon" || die "$daemon died; its log is $STATE/log/$daemon.log"
      die "$what: not within $limit s; see $STATE/log, then run e2e/cluster/down"
    fi
    sleep 0.1
  done
}

# --- what the machine must offer ---------------------------------------------------------------------------

require_linux_root() {
  [ "$(uname -s)" = Linux ] || die "the development cluster needs Linux; on other systems set CLUSTER=existing and KUBECONFIG"
  [[ "$STATE$CACHE" != *[[:space:]]* ]] || die "CHAPERONE_STATE and CHAPERONE_CACHE must not contain spaces"
  [ "$(id -u)" -eq 0 ] || die "the development cluster needs root: run this again with sudo -E, or set CLUSTER=existing and KUBECONFIG"
}

is_debian() {
  grep -qsE '^ID(_LIKE)?=.*(debian|ubuntu)' /etc/os-release
}

# need_commands COMMAND=PACKAGE...: installs the Debian packages of the commands (names or paths) that are missing.
need_commands() {
  local pair missing=()
  for pair; do
    command -v "${pair%%=*}" >/dev/null || missing+=("${pair#*=}")
  done
  [ ${#missing[@]} -gt 0 ] || return 0
  is_debian || die "missing: ${missing[*]}; this is not Debian or Ubuntu, so install these with your package manager and run this again"
  mkdir -p "$CACHE"
  # One at a time: apt lets nobody else in, and does not wait.
  (flock 8 && step "installing ${missing[*]}" "$CACHE/apt.log" install_packages "${missing[@]}") 8>"$CACHE/apt.lock"
}

# Services of the packages must not start on the machine: only the cluster starts what it needs.
install_packages() (
  export DEBIAN_FRONTEND=noninteractive
  if [ ! -e /usr/sbin/policy-rc.d ]; then
    trap 'rm -f /usr/sbin/policy-rc.d' EXIT
    printf '#!/bin/sh\nexit 101\n' >/usr/sbin/policy-rc.d
    chmod +x /usr/sbin/policy-rc.d
  fi
  apt-get update && apt-get install -y --no-install-recommends "$@"
)

cni_plugins() {
  local folder
  for folder in /usr/lib/cni /opt/cni/bin; do
    if [ -x "$folder/bridge" ] && [ -x "$folder/host-local" ]; then
      echo "$folder"
      return
    fi
  done
  return 1
}

# take_lock NAME: at most one script at a time does NAME; the next one waits.
take_lock() {
  mkdir -p "$CACHE"
  exec 9>"$CACHE/$1.lock"
  if ! flock -n 9; then
    say "another e2e script is busy ($1); waiting for it ..."
    flock 9
  fi
}

# --- versions and the cache --------------------------------------------------------------------------------

# module_version FOLDER MODULE: the version that FOLDER/go.mod requires of MODULE, without the v.
module_version() {
  sed -nE "s#^[[:space:]]*(require )?$2 v([^ ]+).*#\2#p" "$HERE/$1/go.mod" | head -n 1
}

KUBE_VERSION=$(module_version kube k8s.io/kubernetes)
ETCD_VERSION=$(module_version tools/etcd go.etcd.io/etcd/server/v3)
HELM_VERSION=$(module_version tools/helm helm.sh/helm/v3)
COREDNS_VERSION=$(module_version tools/coredns github.com/coredns/coredns)

KUBE=$CACHE/kube-$KUBE_VERSION/kube
ETCD=$CACHE/etcd-$ETCD_VERSION/etcd
HELM=$CACHE/helm-$HELM_VERSION/helm
COREDNS=$CACHE/coredns-$COREDNS_VERSION/coredns

# --- namespaces, processes and cgroups ---------------------------------------------------------------------

# `ip netns exec` would mount a new /sys, in which the kubelet finds no cgroups; nsenter does not.
in_netns() {
  local name=$1
  shift
  nsenter --net="/run/netns/$name" -- "$@"
}

kubectl() { in_netns "$NODE_NETNS" "$KUBE" kubectl --kubeconfig "$STATE/admin.kubeconfig" "$@"; }

ctr() { command ctr --address "$CONTAINERD_SOCKET" --namespace k8s.io "$@"; }

# cgroup_roots: our folder in every cgroup hierarchy (one with cgroup v2; with v1 one per controller, and often v2 besides).
cgroup_roots() { awk -v name="$CGROUP" '$3 ~ /^cgroup2?$/ { print $2 "/" name }' /proc/mounts; }

# tracking_cgroup: the one of them whose cgroup.procs files name all our processes.
tracking_cgroup() {
  if [ -f /sys/fs/cgroup/cgroup.controllers ]; then
    echo "/sys/fs/cgroup/$CGROUP"
  else
    echo "/sys/fs/cgroup/pids/$CGROUP"
  fi
}

# start NAME COMMAND...: runs COMMAND in the node's namespace, detached from this script and its terminal.
# Its output goes to $STATE/log/NAME.log; `restart NAME` can run it again.
start() {
  local name=$1
  shift
  printf '%s\0' "$@" >"$STATE/argv/$name"
  (
    exec 9>&-
    echo "$BASHPID" >"$(tracking_cgroup)/system/cgroup.procs"
    exec env -i PATH="$PATH" HOME=/root setsid nsenter --net="/run/netns/$NODE_NETNS" -- "$@"
  ) >>"$STATE/log/$name.log" 2>&1 </dev/null &
  echo "$!" >"$STATE/pid/$name"
}

# is_running NAME: whether the process that `start NAME` made is still there (a reused pid does not count).
is_running() {
  local pid
  pid=$(cat "$STATE/pid/$1" 2>/dev/null) || return 1
  grep -qsx "$pid" "$(tracking_cgroup)/system/cgroup.procs"
}

DAEMONS=(etcd apiserver controller-manager scheduler containerd kubelet proxy)

# cluster_is_up: all daemons run and the node, and with it the cluster, says Ready.
cluster_is_up() {
  local name
  for name in "${DAEMONS[@]}"; do
    is_running "$name" || return 1
  done
  node_is_ready && dns_is_ready
}

apiserver_is_ready() {
  in_netns "$NODE_NETNS" curl -sf --noproxy '*' --max-time 5 --cacert "$STATE/pki/ca.crt" "https://$NODE_IP:6443/readyz"
}

node_is_ready() {
  [ "$(kubectl get node "$NODE_NAME" --request-timeout=5s -o 'jsonpath={.status.conditions[?(@.type=="Ready")].status}' 2>/dev/null)" = True ]
}

dns_is_ready() {
  [ "$(kubectl -n kube-system get deployment coredns --request-timeout=5s -o 'jsonpath={.status.readyReplicas}' 2>/dev/null)" = 1 ]
}
