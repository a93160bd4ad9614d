package testenv_test

import (
	"testing"

	"claudemesh/bus"
	"claudemesh/testenv"
)

func TestAPausedDaemonKeepsItsLockAndItsMail(t *testing.T) {
	broker := testenv.NewBrokerProcess(t)
	a, b := testenv.NewProcess(t, testenv.WithName("ann")), testenv.NewProcess(t, testenv.WithName("ben"))
	var made bus.MeshJoined
	a.Do(bus.OpMeshCreate, bus.MeshCreate{Name: "team", BrokerURL: broker.URL(), AdminTokenFile: broker.AdminTokenFile()}, &made)
	b.Join(a.Share(made.Mesh), "ben")
	b.WaitLink(made.Mesh)
	bob := b.Session(made.Mesh, "bob")
	a.WaitPeer(made.Mesh, "bob")

	b.Pause()
	if !bus.Held(b.Dir()) {
		t.Error("a paused daemon counts as gone")
	}
	sent := a.Send(made.Mesh, bus.SendRequest{To: "bob", Body: "are you there?"})
	a.WaitState(made.Mesh, sent.ClientMessageID, bus.StateSent)
	b.Resume()
	bob.WaitMessage("are you there?")
	a.WaitState(made.Mesh, sent.ClientMessageID, bus.StateDelivered)

	b.Kill()
	if bus.Held(b.Dir()) {
		t.Error("a killed daemon counts as running")
	}
	sent = a.Send(made.Mesh, bus.SendRequest{To: "bob", Body: "and now?"})
	a.WaitState(made.Mesh, sent.ClientMessageID, bus.StateSent)
	b.Start()
	bob = testenv.Resume(b.Machine, bob)
	bob.WaitMessage("and now?")
}
