package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"claudemesh/bus"
	"claudemesh/daemon/outbox"
	"claudemesh/mcp/feed"
	"claudemesh/mesh"
)

func TestExitCodes(t *testing.T) {
	tests := []struct {
		err  error
		exit int
		code string
	}{
		{usagef("x"), exitUsage, "usage"},
		{&severalMeshesError{[]string{"a", "b"}}, exitUsage, "mesh_required"},
		{&unknownMeshError{slug: "a"}, exitNotFound, "mesh_not_joined"},
		{errNoMesh, exitNotFound, "no_mesh"},
		{&tooLargeError{10}, exitUsage, "payload_too_large"},
		{fmt.Errorf("resolve: %w", &mesh.ErrAmbiguous{}), exitUsage, "peer_ambiguous"},
		{fmt.Errorf("parse: %w", mesh.ErrBadTarget), exitUsage, "bad_target"},
		{&startError{reason: "x", log: "l"}, exitInternal, "daemon_start_failed"},
		{&pausedError{7}, exitInternal, "daemon_not_answering"},
		{&stopError{7}, exitInternal, "shutdown_timeout"},
		{errNoAutospawn, exitInternal, "no_daemon"},
		{fmt.Errorf("connect: %w", bus.ErrUnauthorized), exitPermission, "unauthorized"},
		{fmt.Errorf("read: %w", feed.ErrNoToken), exitPermission, "unauthorized"},
		{fmt.Errorf("read: %w: %w", feed.ErrNoToken, os.ErrNotExist), exitPermission, "unauthorized"},
		{fmt.Errorf("%w: x", bus.ErrDenied), exitPermission, "denied"},
		{bus.ErrNoDaemon, exitInternal, "no_daemon"},
		{bus.ErrInterrupted, exitInternal, "interrupted"},
		{errCancelled, exitFailed, "cancelled"},
		{fmt.Errorf("wait: %w", context.Canceled), exitFailed, "cancelled"},
		{context.DeadlineExceeded, exitInternal, "timeout"},
		{bus.ErrLocked, exitFailed, "already_running"},
		{fmt.Errorf("open: %w", outbox.ErrCorrupt), exitIO, "outbox_corrupt"},
		{fmt.Errorf("load: %w", mesh.ErrConfigCorrupt), exitIO, "config_corrupt"},
		{fmt.Errorf("write: %w", os.ErrPermission), exitIO, "io_error"},
		{errors.New("anything else"), exitInternal, "internal"},
		{&waitError{want: "sent", result: sendJSON{State: "accepted"}, cause: errWaitOver}, exitInternal, "wait_timeout"},
		{&waitError{want: "sent", result: sendJSON{State: "accepted"}, cause: errCancelled}, exitFailed, "wait_interrupted"},
		{&waitError{want: "sent", result: sendJSON{State: "accepted"}, cause: &pausedError{7}}, exitInternal, "wait_interrupted"},
		{&sendFailedError{}, exitFailed, "send_failed"},
	}
	for _, tt := range tests {
		t.Run(tt.err.Error(), func(t *testing.T) {
			f := explain(tt.err)
			if f.Exit != tt.exit || f.Code != tt.code || f.Message == "" {
				t.Errorf("got exit %d, code %s, message %q; want %d, %s", f.Exit, f.Code, f.Message, tt.exit, tt.code)
			}
			if strings.HasSuffix(f.Message, ".") || strings.HasSuffix(f.Hint, ".") {
				t.Errorf("ends with a full stop: %q, %q", f.Message, f.Hint)
			}
		})
	}
}

func TestSentencesClaimNoMoreThanIsKnown(t *testing.T) {
	tests := []struct {
		name     string
		reply    bus.SendReply
		progress progress
		want     string
	}{
		{"accepted", bus.SendReply{Target: "bob"}, progress{State: bus.StateAccepted}, "accepted for bob"},
		{"accepted while the mesh is down", bus.SendReply{Target: "bob", Note: "mesh team cannot be reached now"}, progress{State: bus.StateAccepted}, "accepted for bob, waiting (mesh team cannot be reached now)"},
		{"accepted for somebody offline", bus.SendReply{Target: "bob", Online: "no"}, progress{State: bus.StateAccepted}, "accepted for bob, who is offline now: it is delivered when they are back"},
		{"sent", bus.SendReply{Target: "B", RecipientName: "bob", Note: "old"}, progress{State: bus.StateSent}, "sent to bob"},
		{"delivered", bus.SendReply{Target: "bob"}, progress{State: bus.StateDelivered}, "delivered to bob"},
		{"surfaced", bus.SendReply{Target: "bob"}, progress{State: bus.StateSurfaced, Via: "channel"}, "surfaced to bob via channel"},
		{"answered", bus.SendReply{Target: "bob"}, progress{State: bus.StateAnswered}, "answered by bob"},
		{"a repeat", bus.SendReply{Target: "bob", Duplicate: true}, progress{State: bus.StateSent}, "sent to bob (this message was accepted before; nothing new was sent)"},
		{"a name that plays with the terminal", bus.SendReply{Target: "b\x1b[2Job\nx"}, progress{State: bus.StateSent}, "sent to b?[2Job x"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			tt.reply.ClientMessageID = "id"
			if got := sentence(tt.reply, tt.progress); got != tt.want+"  [id]" {
				t.Errorf("got %q", got)
			}
		})
	}
}

func TestProgressNeverGoesBack(t *testing.T) {
	var p progress
	for _, n := range []progress{
		{State: bus.StateAccepted}, {State: bus.StateSurfaced, Via: "channel"}, {State: bus.StateDelivered, BrokerMessageID: "b"}, {State: "nonsense"},
	} {
		p.learn(n)
	}
	if p != (progress{State: bus.StateSurfaced, Via: "channel", BrokerMessageID: "b"}) {
		t.Errorf("got %+v", p)
	}
	p = progress{State: bus.StateAccepted}
	p.learn(progress{State: bus.StateFailed, Reason: "refused"})
	p.learn(progress{State: bus.StateDelivered})
	if p.State != bus.StateFailed || p.Reason != "refused" {
		t.Errorf("got %+v", p)
	}
}

func TestDurations(t *testing.T) {
	for in, want := range map[string]time.Duration{"7d": 168 * time.Hour, "1.5d": 36 * time.Hour, "30m": 30 * time.Minute, "12h": 12 * time.Hour} {
		if got, err := parseDuration(in); err != nil || got != want {
			t.Errorf("%s is %s, %v", in, got, err)
		}
	}
	for _, in := range []string{"", "d", "7", "soon", "99999999d", "1d2d"} {
		if got, err := parseDuration(in); err == nil {
			t.Errorf("%q is %s", in, got)
		}
	}
}
