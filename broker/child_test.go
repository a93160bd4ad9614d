package broker

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strings"
	"testing"

	"claudemesh/bus"
	"claudemesh/mesh"
	"claudemesh/wire"
)

const childDir = "CLAUDEMESH_TEST_BROKER_CHILD"

// runAsChild makes this test binary a broker process that the parent can kill. It reports whether it was one.
func runAsChild() bool {
	dir := os.Getenv(childDir)
	if dir == "" {
		return false
	}
	if err := childBroker(dir); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	return true
}

func childBroker(dir string) error {
	store, err := bus.StartStore(dir, nil, 2<<30)
	if err != nil {
		return err
	}
	nc, err := store.BrokerConn()
	if err != nil {
		return err
	}
	b, err := Open(context.Background(), Config{NC: nc})
	if err != nil {
		return err
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	fmt.Printf("ws://%s/ws\n", l.Addr())
	return Serve(context.Background(), b, l)
}

func TestNothingAcceptedIsLostWhenTheProcessIsKilled(t *testing.T) {
	r := newRig(t)
	bob := r.addMember("bob")
	r.stop()
	const rounds, each = 3, 200
	acked := map[string]string{} // client message id to message id
	var order []string
	for round := range rounds {
		url, kill := startChild(t, r.dir)
		a := r.dialURL(url, r.owner)
		for i := range each {
			a.write(sendFrame(fmt.Sprintf("%d-%d", round, i), bob.PublicKey(), "x"))
		}
		for range each / 2 { // the other half is under way when it dies
			ack := into[wire.Ack](a, a.wait(wire.TypeAck))
			if !ack.Queued {
				t.Fatalf("%+v", ack)
			}
			acked[ack.ID] = ack.MessageID
			order = append(order, ack.ID)
		}
		kill()
		a.close()
	}
	r.start()
	b := r.member(bob)
	a := r.member(r.owner)
	t.Run("a repetition of what was acknowledged gets the same id", func(t *testing.T) {
		for cmid, id := range acked {
			if ack := a.mustSend(sendFrame(cmid, bob.PublicKey(), "x")); !ack.Duplicate || ack.MessageID != id {
				t.Fatalf("%s was %s: %+v", cmid, id, ack)
			}
		}
	})
	t.Run("and everything arrives once, in order", func(t *testing.T) {
		a.mustSend(sendFrame("end", bob.PublicKey(), "x"))
		var got []string
		for {
			p := b.message()
			if p.ClientMessageID == "end" {
				break
			}
			if id, ok := acked[p.ClientMessageID]; ok {
				got = append(got, p.ClientMessageID)
				if id != p.MessageID {
					t.Errorf("%s is %s, acknowledged as %s", p.ClientMessageID, p.MessageID, id)
				}
			}
			b.clientAck(p, "")
		}
		if strings.Join(got, " ") != strings.Join(order, " ") {
			t.Errorf("acknowledged %d, received %d:\n%v\n%v", len(order), len(got), order, got)
		}
	})
}

// startChild runs a broker process on dir; kill ends it with SIGKILL and waits for it.
func startChild(t *testing.T, dir string) (url string, kill func()) {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), childDir+"="+dir)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	dead := false
	kill = func() {
		if !dead {
			dead = true
			_ = cmd.Process.Kill()
			_ = cmd.Wait() // says "killed"
		}
	}
	t.Cleanup(kill)
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(line), kill
}

// dialURL connects a member to a broker that is not r's own process.
func (r *rig) dialURL(url string, who mesh.Identity) *client {
	r.t.Helper()
	c := dialWS(r.t, url)
	h := wire.Hello{MeshID: r.mesh.ID, MemberID: r.mesh.MemberID, SessionID: "s", PID: 1, Cwd: "/"}
	c.write(wire.SignHello(h, who, r.cfg.Clock.Now()))
	c.wait(wire.TypeHelloAck)
	return c
}
