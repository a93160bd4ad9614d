package testenv_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"claudemesh/bridge"
	"claudemesh/bus"
	"claudemesh/mesh"
	"claudemesh/testenv"
	"claudemesh/wire"
)

func TestLeavingAMeshThatCannotBeReached(t *testing.T) {
	b := testenv.NewBrokerProcess(t)
	m := testenv.NewMachine(t)
	m.Do(bus.OpMeshCreate, bus.MeshCreate{Name: "team", BrokerURL: b.URL(), AdminTokenFile: b.AdminTokenFile()}, nil)
	m.WaitLink("team")
	b.Stop()
	s := m.Session("team", "ada")
	sent := m.Send("team", bus.SendRequest{To: "*", Body: "never"})
	refusal(t, testenv.Try(m.User(), bus.DaemonSubject(bus.User, bus.OpMeshLeave), bus.MeshLeave{Mesh: "team"}, nil), 503, "mesh_down")
	failed := listen(t, m.User(), bus.ReceiptSubject("team", bus.User, sent.ClientMessageID))
	var left bus.MeshLeft
	m.Do(bus.OpMeshLeave, bus.MeshLeave{Mesh: "team", Local: true}, &left)
	if left.Sessions != 1 || left.Unsent != 1 || left.Joined != 0 || !strings.HasPrefix(left.KeptAs, "team@") {
		t.Errorf("%+v", left)
	}
	failed.until(t, "the mesh was left")
	var row bus.OutboxItem
	m.Do(bus.OpOutboxGet, bus.OutboxGet{ID: sent.ClientMessageID}, &row)
	if row.Status != "dead" || row.LastError != "the mesh was left" || row.Mesh != left.KeptAs {
		t.Errorf("%+v", row)
	}
	refusal(t, testenv.Try(m.User(), bus.DaemonSubject(bus.User, bus.OpOutboxRequeue), bus.Requeue{ID: row.ID}, nil), 404, "mesh_not_joined")
	_, err := m.TrySend("team", bus.SendRequest{To: "*", Body: "x"})
	refusal(t, err, 404, "mesh_not_joined")
	if _, err := trySend(s, "team", bus.SendRequest{To: "*", Body: "x"}); err == nil {
		t.Error("a session outlived its mesh")
	}
}

func TestARenameThatACrashInterruptedIsFinished(t *testing.T) {
	m := testenv.NewMachine(t)
	m.Create("team")
	m.WaitLink("team")
	sent := m.Send("team", bus.SendRequest{To: "*", Body: "kept"})
	m.WaitState("team", sent.ClientMessageID, bus.StateSent)
	config := filepath.Dir(m.Dir())
	for _, tc := range []struct{ name, from, to, now string }{
		{"when config.json had the new name", "team", "core", "core"},
		{"not when it had the old one", "core", "third", "core"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			m.Stop()
			data := []byte(`{"from":"` + tc.from + `","to":"` + tc.to + `"}`)
			if err := os.WriteFile(filepath.Join(m.Dir(), "mesh-move.json"), data, 0o600); err != nil {
				t.Fatal(err)
			}
			err := mesh.UpdateConfig(config, func(c *mesh.Config) error { c.Meshes[0].Slug = tc.now; return nil })
			if err != nil {
				t.Fatal(err)
			}
			m.Start()
			var row bus.OutboxItem
			m.Do(bus.OpOutboxGet, bus.OutboxGet{ID: sent.ClientMessageID}, &row)
			if row.Mesh != tc.now {
				t.Errorf("the outbox knows it as %s", row.Mesh)
			}
			if _, err := os.Stat(filepath.Join(m.Dir(), "mesh-move.json")); !os.IsNotExist(err) {
				t.Errorf("the intent is still there: %v", err)
			}
		})
	}
}

// A code that stands for no token is claimed: the member's own key goes with it, and the owner's signature comes back.
func TestJoiningByAClaim(t *testing.T) {
	host, guest := testenv.NewMachine(t, testenv.WithName("host")), testenv.NewMachine(t, testenv.WithName("guest"))
	host.Create("team")
	host.WaitLink("team")
	j := memberOf(host, "team")
	owner, err := j.Identity()
	if err != nil {
		t.Fatal(err)
	}
	f := wire.InviteCreate{MaxUses: 1, InviteID: "claim1", Role: "admin", ExpiresAt: time.Now().Add(time.Hour).Unix()}
	f.SignatureV2 = owner.Sign(mesh.InviteV2String(j.MeshID, f.InviteID, f.ExpiresAt, f.Role, j.Pubkey))
	body := encode(t, f)
	sum := sha256.Sum256(body)
	base, err := bridge.HTTPBase(j.BrokerURL)
	if err != nil {
		t.Fatal(err)
	}
	req, err := http.NewRequest(http.MethodPost, base+"/cli/mesh/team/invite", bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", mesh.SignHTTP(owner, http.MethodPost, "/cli/mesh/team/invite", j.MeshID, hex.EncodeToString(sum[:]), time.Now()))
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	var made wire.InviteCreatedHTTP
	if err := json.NewDecoder(res.Body).Decode(&made); err != nil || res.StatusCode != http.StatusOK || made.Code == "" {
		t.Fatalf("%d %+v %v", res.StatusCode, made, err)
	}
	var joined bus.MeshJoined
	guest.Do(bus.OpMeshJoin, bus.MeshJoin{Invite: made.Code, BrokerURL: j.BrokerURL}, &joined)
	guest.WaitLink("team")
	if c := memberOf(guest, "team"); c.InviteVersion != 2 || c.RootKey == "" || c.MemberID != joined.MemberID {
		t.Errorf("%v version %d", c, c.InviteVersion)
	}
	var list bus.MeshList
	guest.Do(bus.OpMeshList, bus.MeshQuery{Server: true}, &list)
	if s := list.Meshes[0].Server; s == nil || s.Role != "admin" || s.OwnerName != "host" {
		t.Errorf("%+v", s)
	}
	refusal(t, testenv.Try(guest.User(), bus.DaemonSubject(bus.User, bus.OpMeshJoin), bus.MeshJoin{Invite: made.URL}, nil), 403, "join_refused") // used up
}
