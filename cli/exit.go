package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"syscall"

	"claudemesh/bus"
	"claudemesh/daemon"
	"claudemesh/daemon/outbox"
	"claudemesh/mcp"
	"claudemesh/mcp/feed"
	"claudemesh/mesh"
	"claudemesh/wire"
)

// Exit codes. The table is part of the interface: scripts and models decide by it.
const (
	exitOK         = 0
	exitFailed     = 1 // cancelled by the user, or failed for a reason without a code of its own
	exitAuth       = 2 // not signed in to a broker, or the sign-in was refused
	exitUsage      = 3 // bad arguments, or a choice is missing or ambiguous
	exitNetwork    = 4 // the broker cannot be reached
	exitNotFound   = 5 // no such mesh, peer, message or session
	exitConflict   = 6 // it exists already, or its state forbids the operation
	exitPermission = 7 // the credential does not allow it
	exitInternal   = 8 // the daemon does not start or answer, or a time limit passed
	exitIO         = 10
)

// failure is an error as the user sees it. Data are further fields of its JSON object.
type failure struct {
	Code    string // machine code, [a-z0-9_]+
	Message string
	Hint    string
	Data    map[string]any
	Exit    int
}

// Error is the message: a verb that knows what its failure means returns a failure of its own making.
func (f *failure) Error() string { return f.Message }

// MarshalJSON makes one flat object: the fixed keys first, then those of Data, of which none replaces a fixed one.
func (f *failure) MarshalJSON() ([]byte, error) {
	fixed, err := json.Marshal(struct {
		Schema  string `json:"schema_version"`
		OK      bool   `json:"ok"`
		Code    string `json:"error"`
		Message string `json:"message"`
		Hint    string `json:"hint,omitempty"`
	}{schemaVersion, false, f.Code, f.Message, f.Hint})
	if err != nil {
		return nil, err
	}
	more := map[string]any{}
	for k, v := range f.Data {
		if k != "schema_version" && k != "ok" && k != "error" && k != "message" && k != "hint" {
			more[k] = v
		}
	}
	if len(more) == 0 {
		return fixed, nil
	}
	rest, err := json.Marshal(more)
	if err != nil {
		return nil, err
	}
	return slices.Concat(fixed[:len(fixed)-1], []byte(","), rest[1:]), nil
}

// explain turns an error into what the user sees. It is the only place that knows exit codes.
func explain(err error) *failure {
	var own *failure
	if errors.As(err, &own) {
		return own
	}
	if f := explainAccount(err); f != nil {
		return f
	}
	f := &failure{Code: "internal", Message: err.Error(), Exit: exitInternal}
	var (
		usage   *usageError
		several *severalMeshesError
		unknown *unknownMeshError
		large   *tooLargeError
		start   *startError
		paused  *pausedError
		stop    *stopError
		wait    *waitError
		failed  *sendFailedError
		api     *bus.APIError
		ambig   *mesh.ErrAmbiguous
		exists  *existsError
		filter  *filterError
		ci      *ciError
		manager *noServiceError
		slow    *startingError
		foreign *daemon.ForeignHostError
	)
	switch {
	// First those that wrap others.
	case errors.As(err, &wait):
		f.Code, f.Data, f.Hint = "wait_interrupted", wait.data(), "the message is kept and still on its way; look again with: claudemesh daemon outbox list"
		if errors.Is(err, errWaitOver) {
			f.Code = "wait_timeout"
		} else if errors.Is(err, errCancelled) {
			f.Exit = exitFailed
		}
	case errors.As(err, &failed):
		f.Code, f.Exit, f.Data = "send_failed", exitFailed, failed.data()
	case errors.As(err, &filter):
		f.Code, f.Exit, f.Hint = "jq_failed", exitFailed, "look at what there is with --json"
	case errors.As(err, &usage):
		f.Code, f.Hint, f.Exit = "usage", usage.hint, exitUsage
	case errors.As(err, &several):
		f.Code, f.Exit, f.Data = "mesh_required", exitUsage, map[string]any{"joined": several.slugs}
		f.Hint = "name one with --mesh SLUG"
	case errors.As(err, &unknown):
		f.Code, f.Exit, f.Data = "mesh_not_joined", exitNotFound, map[string]any{"joined": unknown.joined}
		f.Hint = joinedHint(unknown.joined)
	case errors.Is(err, errNoMesh):
		f.Code, f.Exit, f.Hint = "no_mesh", exitNotFound, joinedHint(nil)
	case errors.As(err, &large):
		f.Code, f.Exit, f.Data = "payload_too_large", exitUsage, map[string]any{"limit": large.limit}
		f.Hint = "send it in parts, or put it into a file that the peer can read"
	case errors.As(err, &ambig):
		f.Code, f.Exit = "peer_ambiguous", exitUsage
	case errors.Is(err, mesh.ErrBadTarget):
		f.Code, f.Exit, f.Hint = "bad_target", exitUsage, "a target is a display name, 16 to 64 hex digits of a key, @group, '#topic' or '*'"
	case errors.As(err, &exists):
		f.Code, f.Exit, f.Hint = "file_exists", exitConflict, "name another one with --out, or replace it with --force"
	case errors.As(err, &ci):
		f.Code, f.Exit, f.Hint = "ci", exitConflict, "if it is none: claudemesh daemon install-service --force"
	case errors.As(err, &manager):
		f.Code, f.Exit, f.Hint = "no_service_manager", exitConflict, "the daemon starts with the first command that needs it, or by: claudemesh daemon up"
	case errors.As(err, &start):
		f.Code, f.Hint = "daemon_start_failed", start.hint()
	case errors.As(err, &slow):
		f.Code, f.Hint = "daemon_starting", "try again in a moment; what it does is in: claudemesh daemon status"
	case errors.As(err, &foreign):
		f.Code, f.Exit, f.Data = "foreign_host", exitConflict, map[string]any{"dir": foreign.Dir, "stored": foreign.Stored, "here": foreign.Here}
		f.Hint = "if the data was moved here, and the other host does not use it any more: claudemesh daemon accept-host\nif it is a copy, and the other host goes on: claudemesh daemon remint"
	case errors.Is(err, daemon.ErrHostPin):
		f.Code, f.Exit, f.Hint = "host_pin_damaged", exitConflict, "if this is the host that the data belongs to: claudemesh daemon accept-host"
	case errors.As(err, &paused):
		f.Code, f.Hint = "daemon_not_answering", paused.hint()
		f.Data = map[string]any{"pid": paused.pid}
	case errors.As(err, &stop):
		f.Code, f.Data, f.Hint = "shutdown_timeout", map[string]any{"stopped": false, "pid": stop.pid}, fmt.Sprintf("if it was paused, continue it with: kill -CONT %d", stop.pid)
	case errors.As(err, &api):
		explainAPI(f, api)
	case errors.Is(err, bus.ErrUnauthorized), errors.Is(err, feed.ErrNoToken):
		f.Code, f.Exit = "unauthorized", exitPermission
		f.Hint = "inside a session: it may have ended, start a new one with: claudemesh session run\nto act as the user instead: unset " + feed.EnvSession + " " + feed.EnvTokenFile
	case errors.Is(err, bus.ErrDenied):
		f.Code, f.Exit, f.Hint = "denied", exitPermission, "this session may not do that; the user can, outside of a session"
	case errors.Is(err, errNoAutospawn), errors.Is(err, bus.ErrNoDaemon):
		f.Code, f.Hint = "no_daemon", "start it with: claudemesh daemon up"
	case errors.Is(err, bus.ErrInterrupted):
		f.Code, f.Hint = "interrupted", "it is not known whether the request was carried out"
	case errors.Is(err, mcp.ErrServerEnded):
		f.Code, f.Hint = "server_ended", "what it wrote to stderr is above"
	case errors.Is(err, errCancelled), errors.Is(err, context.Canceled):
		f.Code, f.Message, f.Exit = "cancelled", "cancelled", exitFailed
	case errors.Is(err, context.DeadlineExceeded):
		f.Code, f.Message, f.Hint = "timeout", "the daemon did not answer in time: "+err.Error(), "look at: claudemesh daemon status"
	case errors.Is(err, bus.ErrLocked):
		f.Code, f.Exit, f.Hint = "already_running", exitFailed, "look at: claudemesh daemon status"
	case errors.Is(err, daemon.ErrInsecureListen):
		f.Code, f.Exit = "insecure_listen", exitUsage
		f.Hint = "give it a certificate: --tls-cert FILE --tls-key FILE\nor say that a proxy in front of it adds TLS: --behind-proxy\nor listen on 127.0.0.1\nor, where everybody on the network may read tokens and names, --insecure"
	case errors.Is(err, daemon.ErrTLSFiles):
		f.Code, f.Exit, f.Hint = "usage", exitUsage, "--tls-cert FILE --tls-key FILE"
	case errors.Is(err, outbox.ErrCorrupt):
		f.Code, f.Exit, f.Hint = "outbox_corrupt", exitIO, "the file is kept as it is, because it may hold messages that were accepted; move it away to start with an empty one"
	case errors.Is(err, mesh.ErrConfigCorrupt):
		f.Code, f.Exit, f.Hint = "config_corrupt", exitIO, "the file is kept as it is, because it may hold the only copy of a key"
	case errors.Is(err, fs.ErrPermission), errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ENOSPC):
		f.Code, f.Exit = "io_error", exitIO
	}
	return f
}

// explainAPI decides by the daemon's reason where it says more than the number.
func explainAPI(f *failure, e *bus.APIError) {
	f.Code, f.Message = e.Reason, e.Detail
	if f.Message == "" {
		f.Message = strings.ReplaceAll(e.Reason, "_", " ")
	}
	var data map[string]any
	if e.Data != nil && e.DecodeData(&data) == nil {
		delete(data, "error")
		delete(data, "detail")
		f.Data = data
	}
	switch {
	case e.Reason == "join_refused" && strings.HasPrefix(fmt.Sprint(f.Data["broker_code"]), "invite_"):
		f.Exit = exitNotFound
	case e.Reason == "broker_refused":
		f.Exit = brokerExit(f.Data["broker_code"])
	case e.Reason == "peer_ambiguous" || e.Reason == "id_ambiguous" || e.Reason == "mesh_required":
		f.Exit = exitUsage
	case e.Code == 401 || e.Code == 403:
		f.Exit = exitPermission
	case e.Code == 404 || e.Code == 410:
		f.Exit = exitNotFound
	case e.Code == 409 || e.Code == 429:
		f.Exit = exitConflict
	case e.Code == 400 || e.Code == 413 || e.Code == 501:
		f.Exit = exitUsage
	case e.Code == 502 || e.Code == 503 || e.Code == 504:
		f.Exit = exitNetwork
	case e.Code == 507:
		f.Exit = exitIO
	}
	f.Hint = apiHint(e.Reason, f.Data)
}

// brokerExit is the exit code of a request that the broker refused.
func brokerExit(code any) int {
	switch code {
	case wire.CodeInvalid, wire.CodeMalformed, wire.CodeInvalidCron, wire.CodeInvalidWebhook, wire.CodePrivateAddress, wire.CodeUnknownType,
		wire.CodeAmbiguous, wire.CodeInvalidArgs:
		return exitUsage
	case wire.CodeWebhookExists, wire.CodeLimit, wire.CodeTopicKeyMoved, wire.CodeConflict:
		return exitConflict
	case wire.CodeForbidden, wire.CodeUnauthorized:
		return exitPermission
	case wire.CodeNotFound, wire.CodeTopicNotFound, wire.CodeMeshDeleted:
		return exitNotFound
	}
	return exitNetwork
}

func apiHint(reason string, data map[string]any) string {
	switch reason {
	case "peer_not_found":
		names := candidateNames(data)
		if len(names) == 0 {
			return "see who is there with: claudemesh peer list"
		}
		return "known peers: " + strings.Join(names, ", ")
	case "topic_not_found":
		var names []string
		list, _ := data["topics"].([]any)
		for _, name := range list {
			names = append(names, "#"+cleanLine(fmt.Sprint(name)))
		}
		if len(names) > 0 {
			return "topics: " + strings.Join(names, ", ")
		}
		return "see what there is with: claudemesh topic list"
	case "not_in_topic":
		return "join it with: claudemesh topic join " + cleanLine(fmt.Sprint(data["topic"]))
	case "peer_ambiguous":
		return "use 16 or more hex digits of the key you mean"
	case "mesh_not_joined":
		var joined []string
		if list, ok := data["joined"].([]any); ok {
			for _, s := range list {
				joined = append(joined, fmt.Sprint(s))
			}
		}
		return joinedHint(joined)
	case "conversation_live":
		return "go on in that session, or end it with: claudemesh session revoke " + cleanLine(fmt.Sprint(data["session"]))
	case daemon.ReasonNeedsDaemon:
		return "run it without --no-daemon and " + noDaemonEnv
	case "payload_too_large":
		return "send it in parts, or put it into a file that the peer can read"
	case "pair_limit":
		return "put what there is to say into one message, and wait before the next"
	case "reply_loop":
		return "ask your user whether to go on: a word of theirs lifts this"
	case "mesh_down", "broker_timeout":
		return "see the state of the link with: claudemesh daemon status"
	case "broker_not_trusted":
		return "put the authority's certificate into ~/.claudemesh/ca.pem, or name it with: claudemesh daemon restart --ca-file FILE"
	case bus.ReasonCapability:
		return capabilityHint(data)
	case "caps_exceeded":
		return "name what it may do with: --caps " + capsWords(data["allowed_caps"])
	case bus.ReasonOnlyMesh:
		return "it was started with --only-mesh; the user can start one without, outside of a session"
	case "internal":
		return "the daemon's log says more; its path is in: claudemesh daemon status"
	}
	return ""
}

// candidateNames lists the distinct names in an error's candidates, a few of them.
func candidateNames(data map[string]any) []string {
	list, _ := data["candidates"].([]any)
	var names []string
	seen := map[string]bool{}
	for _, c := range list {
		m, _ := c.(map[string]any)
		name, _ := m["name"].(string)
		if name = cleanLine(name); name == "" || seen[name] {
			continue
		}
		seen[name] = true
		if names = append(names, name); len(names) == 12 {
			break
		}
	}
	return names
}

func joinedHint(joined []string) string {
	if len(joined) == 0 {
		return "make one with: claudemesh create NAME\nor join one with: claudemesh join INVITE"
	}
	return "joined meshes: " + strings.Join(joined, ", ")
}
