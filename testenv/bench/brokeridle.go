package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"claudemesh/testenv/crowd"
)

// What idle connections belong to: meshes of ten members, each with a connection of its own and nine sessions, every one with its own mailbox.
const (
	idleMembers  = 10
	idlePerMesh  = 100
	idlePerOwner = idlePerMesh / idleMembers
)

// idleConnections measures a broker with nothing but open connections.
func (r *rig) idleConnections() error {
	ctx := context.Background()
	numbers := []int{1000}
	if r.full {
		numbers = append(numbers, 10_000)
	}
	b, err := r.serve("idle", "--max-connections", "12000", "--sync", "interval")
	if err != nil {
		return err
	}
	empty, err := rss(b.cmd.Process.Pid)
	if err != nil {
		row("broker: idle connections", "not measured: %v", err) // only Linux tells
		return b.discard()
	}
	var open []*crowd.Client
	defer func() {
		_ = b.discard() // first, so that nobody has to say goodbye
		for _, c := range open {
			c.Close()
		}
	}()
	for _, n := range numbers {
		begin := time.Now()
		for len(open) < n {
			more, err := r.idleMesh(ctx, b)
			open = append(open, more...)
			if err != nil {
				return err
			}
		}
		took := time.Since(begin)
		size, err := r.settledRSS(b)
		if err != nil {
			return err
		}
		note := ""
		if n == 10_000 {
			note = "  (aim < 500 MB; reference 180–240 MiB with a few, without its database)"
		}
		row(fmt.Sprintf("broker: RSS with %d idle connections", n), "%.1f MB, %.1f kB each (%.1f MB with none); set up in %.1f s%s",
			size, (size-empty)*1000/float64(n), empty, took.Seconds(), note)
		for _, c := range open {
			select {
			case <-c.Done():
				return fmt.Errorf("an idle connection ended: %w", c.Err())
			default:
			}
		}
	}
	return nil
}

// settledRSS is the size of a broker that has had time to give back what setting up took.
func (r *rig) settledRSS(b *brokerProc) (float64, error) {
	wait := 5 * time.Second
	if r.quick {
		wait = time.Second
	}
	time.Sleep(wait)
	return rss(b.cmd.Process.Pid)
}

// idleMesh opens the connections of one more mesh.
func (r *rig) idleMesh(ctx context.Context, b *brokerProc) (open []*crowd.Client, err error) {
	m, err := b.NewMesh(ctx, "idle")
	if err != nil {
		return nil, err
	}
	members, err := m.Enrol(ctx, idleMembers-1)
	if err != nil {
		return nil, err
	}
	var mu sync.Mutex
	var wg sync.WaitGroup
	for _, who := range append(members, m.Owner) {
		wg.Go(func() {
			for i := range idlePerOwner {
				join := func() (*crowd.Client, error) { return m.JoinSession(ctx, who, crowd.Discard) }
				if i == 0 {
					join = func() (*crowd.Client, error) { return m.Join(ctx, who, crowd.Discard) }
				}
				c, joinErr := join()
				mu.Lock()
				if joinErr != nil {
					err = errors.Join(err, joinErr)
				} else {
					open = append(open, c)
				}
				mu.Unlock()
				if joinErr != nil {
					return
				}
			}
		})
	}
	wg.Wait()
	return open, err
}

// restarts measures from exec to the first answer of a broker with many messages stored, after a good end and after kill -9.
func (r *rig) restarts() error {
	ctx := context.Background()
	messages := 100_000
	switch {
	case r.full:
		messages = 1_000_000
	case r.quick:
		messages = 10_000
	}
	b, err := r.serve("restart", "--sync", "interval", "--max-store", "4")
	if err != nil {
		return err
	}
	m, err := b.NewMesh(ctx, "full")
	if err != nil {
		return err
	}
	members, err := m.Enrol(ctx, max(2, messages/8000))
	if err != nil {
		return err
	}
	begin := time.Now()
	away := &crowdMesh{Mesh: m, members: members}
	if err := fill(ctx, away, messages); err != nil {
		return err
	}
	row("broker: stored for members who are away", "%d messages in %.1f s: %.0f/s", messages, time.Since(begin).Seconds(), float64(messages)/time.Since(begin).Seconds())
	for _, end := range []struct {
		name string
		stop func() error
	}{{"kill -9", b.kill}, {"a good end", b.stop}} {
		var lat sample
		for range 3 {
			if err := fill(ctx, away, messages/100); err != nil { // so that there is something to lose
				return err
			}
			if err := end.stop(); err != nil {
				return err
			}
			d, err := timed(func() error {
				if err := r.launch(b); err != nil {
					return err
				}
				return b.healthy()
			})
			if err != nil {
				return err
			}
			lat = append(lat, d)
			away.Broker = b.Broker
			if err := knows(ctx, away.Mesh, members[0]); err != nil {
				return err
			}
		}
		note := ""
		if messages == 1_000_000 {
			note = "  (aim < 2 s)"
		}
		row(fmt.Sprintf("broker: restart over %d messages after %s", messages, end.name), "p50 %.2f s, worst %.2f s%s%s", lat.median().Seconds(), lat.at(1).Seconds(), sizeOf(b), note)
	}
	return b.discard()
}

// sizeOf says how large a broker is, where that can be known.
func sizeOf(b *brokerProc) string {
	size, err := rss(b.cmd.Process.Pid)
	if err != nil {
		return ""
	}
	return fmt.Sprintf("; then RSS %.0f MB", size)
}

// fill stores messages for members who are not there.
func fill(ctx context.Context, m *crowdMesh, messages int) error {
	const clients = 8
	m.serial++
	var wg sync.WaitGroup
	errs := make([]error, clients)
	body := strings.Repeat("x", 64)
	for i := range clients {
		s, err := m.sender(ctx, fmt.Sprint("filler-", i), 128)
		if err != nil {
			return err
		}
		wg.Go(func() {
			defer s.Close()
			for n := i; n < messages && errs[i] == nil; n += clients {
				errs[i] = s.send(crowd.Send(fmt.Sprintf("fill-%d-%d", m.serial, n), m.members[n%len(m.members)].PublicKey(), body))
			}
			errs[i] = errors.Join(errs[i], s.quiet())
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

// knows checks that the broker has its mail: the first message in a mailbox is pushed.
func knows(ctx context.Context, m *crowd.Mesh, who crowd.Member) error {
	came := make(chan struct{}, 1)
	c, err := m.Join(ctx, who, func(_ *crowd.Client, _ string, data []byte) {
		if crowd.Field(data, "client_message_id") != "" {
			select {
			case came <- struct{}{}:
			default:
			}
		}
	})
	if err != nil {
		return err
	}
	defer c.Close()
	select {
	case <-came:
		return nil
	case <-time.After(time.Minute):
		return errors.New("the restarted broker pushed nothing")
	}
}
