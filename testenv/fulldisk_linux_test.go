package testenv_test

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"claudemesh/bus"
	"claudemesh/daemon"
	"claudemesh/testenv"
)

// diskEnv marks the copy of the test binary that may mount file systems, and names the directory for them.
const diskEnv = "CLAUDEMESH_TEST_DISK"

// onSmallDisks runs the calling test again in a process with file systems of its own, which end with it, and there runs fn. mount makes a file system.
func onSmallDisks(t *testing.T, fn func(t *testing.T, mount func(name string, megabytes int) string)) {
	t.Helper()
	if base := os.Getenv(diskEnv); base != "" {
		fn(t, func(name string, megabytes int) string {
			t.Helper()
			dir := filepath.Join(base, name)
			if err := os.Mkdir(dir, 0o700); err != nil {
				t.Fatal(err)
			}
			if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, fmt.Sprintf("size=%dm,mode=0700", megabytes)); err != nil {
				t.Fatalf("mount: %v", err)
			}
			return dir
		})
		return
	}
	cmd := exec.Command(os.Args[0], "-test.run=^"+t.Name()+"$", "-test.v=true", "-test.timeout=5m")
	cmd.Env = append(os.Environ(), diskEnv+"="+testenv.TempDir(t))
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
	if uid := os.Getuid(); uid != 0 {
		cmd.SysProcAttr.Cloneflags |= syscall.CLONE_NEWUSER
		cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: uid, Size: 1}}
	}
	probe := exec.Command("true")
	probe.SysProcAttr = cmd.SysProcAttr
	if err := probe.Run(); err != nil {
		t.Skipf("this system lets no process have mounts of its own: %v", err)
	}
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

// fill takes all the space of a file system and returns what gives it back.
func fill(t *testing.T, dir string) (free func()) {
	t.Helper()
	path := filepath.Join(dir, "filler")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for size := 1 << 20; size > 0; {
		if _, err := f.Write(make([]byte, size)); errors.Is(err, syscall.ENOSPC) {
			size /= 2
		} else if err != nil {
			t.Fatal(err)
		}
	}
	return func() {
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
	}
}

// flood sends until n sends have been refused for want of space, and returns the texts of both kinds.
func flood(t *testing.T, m *testenv.Machine, slug, to, name string, n int) (accepted, refused []string) {
	t.Helper()
	for i := 0; len(refused) < n; i++ {
		if i == 2000 {
			t.Fatal("the disk does not fill")
		}
		text := fmt.Sprintf("%s %d %s", name, i, strings.Repeat("x", 30<<10))
		r, err := m.TrySend(slug, bus.SendRequest{To: to, Body: text, ClientMessageID: fmt.Sprint(name, i)})
		if err == nil {
			if r.Code != 202 || r.Duplicate {
				t.Errorf("answer %+v", r)
			}
			accepted = append(accepted, text)
			continue
		}
		refusal(t, err, 507, "disk_full")
		refused = append(refused, text)
	}
	return accepted, refused
}

// collect takes a session's messages as a shim does and waits for all of want; it returns how often each came.
func collect(t *testing.T, s *testenv.Session, want []string) map[string]int {
	t.Helper()
	got := map[string]int{}
	testenv.Wait(t, fmt.Sprintf("%d messages", len(want)), nil, func() bool {
		var l bus.InboxList
		if err := testenv.Try(s.Client, bus.DaemonSubject(s.Info.ID, bus.OpInboxPending), nil, &l); err != nil {
			t.Fatalf("list pending: %v", err)
		}
		var ids []string
		for _, it := range l.Items {
			got[it.Body]++
			ids = append(ids, it.ID)
		}
		if len(ids) > 0 {
			s.Do(bus.OpInboxSurfaced, bus.MessageIDs{IDs: ids, Via: bus.ViaChannel}, nil)
		}
		for _, text := range want {
			if got[text] == 0 {
				return false
			}
		}
		return true
	})
	return got
}

func TestAFullDiskOfTheSender(t *testing.T) {
	onSmallDisks(t, func(t *testing.T, mount func(string, int) string) {
		disk := mount("small", 16)
		host := testenv.NewMachine(t)
		m := testenv.NewMachine(t, func(o *daemon.Options) { o.Dir = filepath.Join(disk, "daemon") })
		team := host.Create("team")
		m.Join(host.Share(team), "guest")
		m.WaitLink(team)
		bob, carol := host.Session(team, "bob"), m.Session(team, "carol")
		m.WaitPeer(team, "bob")
		host.WaitPeer(team, "carol")
		m.Send(team, bus.SendRequest{To: "bob", Body: "before"})
		bob.WaitMessage("before")

		free := fill(t, disk)
		accepted, refused := flood(t, m, team, "bob", "full", 20)
		t.Logf("%d accepted on the full disk, %d refused", len(accepted), len(refused))
		if s := status(m); !s.Running {
			t.Error("the daemon does not run")
		}
		if len(refused) > 0 {
			err := testenv.Try(m.User(), bus.DaemonSubject(bus.User, bus.OpOutboxGet), bus.OutboxGet{ID: "full" + strings.Fields(refused[0])[1], Mesh: team}, nil)
			refusal(t, err, 404, "not_found")
		}
		// What comes in meanwhile is not lost: it is not acknowledged.
		var in []string
		for i := range 5 {
			in = append(in, fmt.Sprint("came while it was full ", i))
			host.Send(team, bus.SendRequest{To: "carol", Body: in[i]})
		}
		err := testenv.Try(m.User(), bus.DaemonSubject(bus.User, bus.OpSessionStart), bus.SessionStart{Mesh: team, Name: strings.Repeat("n", 100), PID: os.Getpid(), Cwd: strings.Repeat("c", 4000)}, nil)
		if err != nil {
			refusal(t, err, 507, "disk_full")
		}

		free()
		if r := m.Send(team, bus.SendRequest{To: "bob", Body: refused[0], ClientMessageID: "full" + strings.Fields(refused[0])[1]}); r.Duplicate {
			t.Errorf("a refused send used its key up: %+v", r)
		}
		accepted, refused = append(accepted, refused[0], "after"), refused[1:]
		m.Send(team, bus.SendRequest{To: "bob", Body: "after"})
		got := collect(t, bob, accepted)
		for _, text := range accepted {
			if got[text] != 1 {
				t.Errorf("%.20s came %d times", text, got[text])
			}
		}
		for _, text := range refused {
			if got[text] != 0 {
				t.Errorf("%.20s was refused and came", text)
			}
		}
		for text, n := range collect(t, carol, in) {
			if n != 1 {
				t.Errorf("%s came %d times", text, n)
			}
		}
	})
}

func TestAFullDiskOfTheBroker(t *testing.T) {
	onSmallDisks(t, func(t *testing.T, mount func(string, int) string) {
		disk := mount("small", 64)
		host := testenv.NewMachine(t, func(o *daemon.Options) { o.Dir = filepath.Join(disk, "daemon") })
		m := testenv.NewMachine(t)
		team := host.Create("team")
		m.Join(host.Share(team), "guest")
		m.WaitLink(team)
		bob := host.Session(team, "bob")
		m.WaitPeer(team, "bob")
		free := fill(t, disk)
		var texts []string
		for i := range 60 {
			texts = append(texts, fmt.Sprintf("%d %s", i, strings.Repeat("x", 30<<10)))
			m.Send(team, bus.SendRequest{To: "bob", Body: texts[i]}) // accepted: the sender's disk has room
		}
		testenv.Wait(t, "the store to fail", nil, func() bool { return strings.Contains(host.Log.String(), "the store takes no more") })
		if s := status(host); !s.Running {
			t.Error("the daemon does not run")
		}
		free()
		got := collect(t, bob, texts)
		for _, text := range texts {
			if got[text] != 1 {
				t.Errorf("%.10s came %d times", text, got[text])
			}
		}
	})
}
