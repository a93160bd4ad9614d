package outbox

import (
	"bufio"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/jonboulle/clockwork"
)

const crashDirEnv = "OUTBOX_TEST_CRASH_DIR"

// crashingWriter is the child: it accepts and moves messages from eight goroutines and reports each step on stdout once
// the outbox has answered, until it is killed.
func crashingWriter(dir string) {
	s, err := Open(filepath.Join(dir, "outbox.db"), clockwork.NewRealClock())
	if err != nil {
		fmt.Println("error", err)
		os.Exit(1)
	}
	var out sync.Mutex
	report := func(step, cmid string) {
		out.Lock()
		defer out.Unlock()
		fmt.Println(step, cmid)
	}
	ctx := context.Background()
	var wg sync.WaitGroup
	for w := range 8 {
		wg.Go(func() {
			for i := 0; ; i++ {
				cmid := fmt.Sprintf("%d-%d-%d", os.Getpid(), w, i)
				n := message(cmid, fmt.Sprint("peer", w))
				n.Mesh = fmt.Sprint("mesh", w)
				if _, err := s.Accept(ctx, n); err != nil {
					report("error", err.Error())
					os.Exit(1)
				}
				report("accepted", cmid)
				if i%3 == 0 {
					continue
				}
				rows, err := s.Claim(ctx, n.Mesh, 1)
				if err != nil || len(rows) != 1 {
					report("error", fmt.Sprint(len(rows), err))
					os.Exit(1)
				}
				if err := s.Sent(ctx, rows[0].ID, "B-"+rows[0].ClientMessageID); err != nil {
					report("error", err.Error())
					os.Exit(1)
				}
				report("sent", rows[0].ClientMessageID)
			}
		})
	}
	wg.Wait()
}

func TestWhatWasAnsweredSurvivesAKill(t *testing.T) {
	dir := t.TempDir()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	accepted, sent := map[string]bool{}, map[string]bool{}
	for round := range 8 {
		cmd := exec.Command(exe)
		cmd.Env = append(os.Environ(), crashDirEnv+"="+dir)
		stdout, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		killAt := 1 + rand.IntN(400)
		lines := bufio.NewScanner(stdout)
		for n := 0; lines.Scan(); n++ {
			step, cmid, _ := strings.Cut(lines.Text(), " ")
			switch step {
			case "accepted":
				accepted[cmid] = true
			case "sent":
				sent[cmid] = true
			default:
				t.Errorf("round %d: %s", round, lines.Text())
			}
			if n == killAt {
				_ = cmd.Process.Kill() // what it still wrote is read on
			}
		}
		_ = cmd.Wait()
		s, err := Open(filepath.Join(dir, "outbox.db"), clockwork.NewRealClock())
		if err != nil {
			t.Fatalf("round %d: %v", round, err)
		}
		if _, err := s.Recover(t.Context()); err != nil {
			t.Fatal(err)
		}
		rows, err := s.List(t.Context(), Filter{Limit: 10_000})
		if err != nil {
			t.Fatal(err)
		}
		stored := map[string]Row{}
		for _, r := range rows {
			stored[r.ClientMessageID] = r
			if r.Status != Pending && r.Status != Done {
				t.Errorf("round %d: %s is %s after recovery", round, r.ClientMessageID, r.Status)
			}
			if (r.Status == Done) != (r.BrokerMessageID != "") || string(r.Payload) != "text of "+r.ClientMessageID {
				t.Errorf("round %d: half-written row %+v", round, r)
			}
		}
		for cmid := range accepted {
			if _, ok := stored[cmid]; !ok {
				t.Errorf("round %d: %s was accepted and is gone", round, cmid)
			}
		}
		for cmid := range sent {
			if stored[cmid].Status != Done {
				t.Errorf("round %d: %s was marked sent and is %s", round, cmid, stored[cmid].Status)
			}
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("%d accepted, %d sent", len(accepted), len(sent))
}
