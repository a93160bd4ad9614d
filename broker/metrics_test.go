package broker

import (
	"crypto/sha256"
	"net/http"
	"strings"
	"testing"

	"claudemesh/wire"
)

func TestFiguresAreForOperators(t *testing.T) {
	r := newRig(t, func(c *Config) { c.AdminTokenHash = sha256.Sum256([]byte("secret")) })
	for _, path := range []string{"/metrics", "/status"} {
		if status, got := r.httpGet(path); status != 401 || got["error"] != "missing_bearer_token" {
			t.Errorf("%s: %d %v", path, status, got)
		}
		if status, _ := r.fetch(http.MethodGet, path, "Bearer wrong", nil); status != 401 {
			t.Errorf("%s: %d", path, status)
		}
	}
	if status, got := r.fetch(http.MethodGet, "/status", "Bearer secret", nil); status != 200 || got["meshes"] != 1.0 || got["members"] != 1.0 || got["status"] != "ok" {
		t.Errorf("%d %v", status, got)
	}
	if status, got := newRig(t).httpGet("/metrics"); status != 403 || got["error"] != "admin_disabled" {
		t.Errorf("without an admin token: %d %v", status, got)
	}
}

func TestMetrics(t *testing.T) {
	r := newRig(t, func(c *Config) { c.OpenStatus = true; c.Limits.Window = 1 })
	bob := r.addMember("bob")
	owner := r.member(r.owner)
	for _, id := range []string{"1", "2", "3"} {
		owner.write(wire.Send{Type: wire.TypeSend, ID: id, TargetSpec: bob.PublicKey(), Priority: "now", Nonce: "AA==", Ciphertext: "AA==", ClientMessageID: id})
		owner.wait(wire.TypeAck)
	}
	owner.write(wire.Send{Type: wire.TypeSend, ID: "4", TargetSpec: strings.Repeat("0", 64), Priority: "now"})
	owner.wait(wire.TypeAck)
	r.mailIn(r.mailboxOf(bob), 3)
	stranger := r.dial()
	stranger.write(r.helloFrame(newIdentity(t)))
	stranger.wait(wire.TypeError)
	slow := r.member(bob) // acknowledges nothing
	slow.wait(wire.TypePush)
	want := []string{
		"broker_db_healthy 1", "broker_connections_active 2", "broker_connections_total 2", `broker_connections_rejected_total{reason="unauthorized"} 1`,
		`broker_messages_routed_total{priority="now"} 3`, `broker_messages_rejected_total{reason="no_peer"} 1`, "broker_queue_depth 3",
		"claudemesh_broker_mailbox_depth_max 3", "claudemesh_broker_fanout_lag 0", `claudemesh_broker_store_messages{stream="CM_ACCEPT"} 3`,
		"claudemesh_broker_push_stalls_total 1", `claudemesh_broker_requests_total{type="send"} 4`, "claudemesh_broker_meshes 1",
	}
	var text, missing string
	defer func() {
		if missing != "" {
			t.Logf("%s is missing:\n%s", missing, text)
		}
	}()
	r.until("the figures are right", func() bool {
		missing, text = "", r.text("/metrics")
		for _, line := range want {
			if !strings.Contains(text, line+"\n") {
				missing = line
			}
		}
		return missing == ""
	})
	if strings.Contains(text, r.mesh.ID) || strings.Contains(text, bob.PublicKey()) {
		t.Error("names a mesh or a member")
	}
}
