#!/usr/bin/env bash
# The main job on a fresh machine: a mesh on this machine's own broker, two sessions, messages both ways, and what is known about each.
# Everything happens below one temporary HOME, which is removed at the end. Usage: docs/demo.sh path/to/claudemesh
set -euo pipefail

bin=$(cd "$(dirname "${1:?usage: docs/demo.sh path/to/claudemesh}")" && pwd)/$(basename "$1")
home=$(mktemp -d "${TMPDIR:-/tmp}/cm-demo.XXXXXX")
unset CLAUDEMESH_CONFIG_DIR CLAUDEMESH_DAEMON_DIR CLAUDEMESH_SESSION_ID CLAUDEMESH_MESH CLAUDEMESH_IPC_TOKEN CLAUDEMESH_IPC_TOKEN_FILE XDG_CONFIG_HOME
export HOME=$home
cm() { "$bin" "$@"; }
say() { printf '\n\033[1m%s\033[0m\n' "$*"; }
bob=
cleanup() {
  [ -z "$bob" ] || kill "$bob" 2>/dev/null || true
  cm daemon down >/dev/null 2>&1 || true
  rm -rf "$home"
}
trap cleanup EXIT

say '$ claudemesh create team'
cm create team

say '$ claudemesh session run --name bob -- (inbox --follow, send alice)'
mkfifo "$home/answered"
cm session run --name bob -- bash -c '
  while IFS= read -r line; do
    printf "  [bob] received: %s\n" "$line"
    id=$(printf %s "$line" | sed -E "s/.*\"id\": ?\"([^\"]+)\".*/\1/")
    "$0" send alice "shipped, thanks" --reply-to "$id" --wait delivered
    break
  done < <("$0" inbox --follow --json)
  kill $!
  echo > "$HOME/answered"' "$bin" &
bob=$!
until cm peer list --json | grep -q '"displayName": *"bob"'; do sleep 0.05; done

say '$ claudemesh session run --name alice -- (peer list, send bob, inbox)'
secret="ship it, the word is xyzzy-$RANDOM$RANDOM"
cm session run --name alice -- bash -c '
  "$0" peer list
  "$0" send bob "$1" --wait surfaced
  read -r _ < "$HOME/answered"
  "$0" inbox
' "$bin" "$secret"
wait "$bob"; bob=

say '$ claudemesh daemon outbox list'
cm daemon outbox list

say '$ the text is sealed: it is in no store of the broker and in no log'
cm daemon down
if grep -rqF "$secret" "$home/.claudemesh/daemon/jetstream/BROKER" "$home/.claudemesh/daemon/daemon.log"; then
  echo "the text was found where only sealed text may be"; exit 1
fi
echo "searched $(find "$home/.claudemesh/daemon/jetstream/BROKER" -type f | wc -l) files of the broker's store and the log: not found"
