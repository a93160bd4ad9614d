package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"claudemesh/testenv/crowd"
	"claudemesh/wire"
)

// handshakes measures a socket from dial to hello_ack: as many as can be made one after the other, by one and by 16 at once.
func (r *rig) handshakes(ctx context.Context, m *crowdMesh) error {
	for _, callers := range []int{1, 16} {
		var mu sync.Mutex
		var lat sample
		var failed error
		var wg sync.WaitGroup
		begin := time.Now()
		for i := range callers {
			wg.Go(func() {
				for time.Since(begin) < r.span() {
					var c *crowd.Client
					d, err := timed(func() (err error) { c, err = m.Join(ctx, m.members[i], crowd.Discard); return err })
					mu.Lock()
					lat, failed = append(lat, d), errors.Join(failed, err)
					mu.Unlock()
					if err != nil {
						return
					}
					c.Close()
				}
			})
		}
		wg.Wait()
		if failed != nil {
			return failed
		}
		rate, reference := float64(len(lat))/time.Since(begin).Seconds(), 97.0
		if callers > 1 {
			reference = 140
		}
		row(fmt.Sprintf("broker: hello, %d at once", callers), "%.0f/s  p50 %s  p99 %s  (reference %.0f/s: %.1f times that)", rate, ms(lat.median()), ms(lat.at(0.99)), reference, rate/reference)
	}
	return nil
}

// sender is a client that keeps a number of sends in flight.
type sender struct {
	*crowd.Client
	mu      sync.Mutex
	begun   map[string]time.Time
	lat     sample
	refused error
	free    chan struct{}
}

func (m *crowdMesh) sender(ctx context.Context, session string, inFlight int) (*sender, error) {
	s := &sender{begun: map[string]time.Time{}, free: make(chan struct{}, inFlight)}
	for range inFlight {
		s.free <- struct{}{}
	}
	var err error
	s.Client, err = m.JoinAs(ctx, m.Owner, session, func(_ *crowd.Client, frameType string, data []byte) {
		if frameType != wire.TypeAck {
			return
		}
		now := time.Now()
		s.mu.Lock()
		id := crowd.Field(data, "id")
		s.lat = append(s.lat, now.Sub(s.begun[id]))
		delete(s.begun, id)
		if !strings.Contains(string(data), `"queued":true`) && s.refused == nil {
			s.refused = fmt.Errorf("send refused: %s", data)
		}
		s.mu.Unlock()
		s.free <- struct{}{}
	})
	return s, err
}

// send waits for its turn and sends.
func (s *sender) send(f wire.Send) error {
	select {
	case <-s.free:
	case <-s.Done():
		return fmt.Errorf("broker hung up: %w", s.Err())
	}
	s.mu.Lock()
	s.begun[f.ID] = time.Now()
	err := s.refused
	s.mu.Unlock()
	return errors.Join(err, s.Write(f))
}

// quiet waits until everything sent is acknowledged.
func (s *sender) quiet() error {
	for range cap(s.free) {
		select {
		case <-s.free:
		case <-s.Done():
			return fmt.Errorf("broker hung up: %w", s.Err())
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.refused
}

// listeners connects members who acknowledge what they get and count it.
func (m *crowdMesh) listeners(ctx context.Context, n int, arrived func(data []byte)) (stop func(), err error) {
	var all []*crowd.Client
	stop = func() {
		for _, c := range all {
			c.Close()
		}
	}
	for _, who := range m.members[:n] {
		c, err := m.Join(ctx, who, func(c *crowd.Client, frameType string, data []byte) {
			if frameType != wire.TypePush || strings.Contains(string(data), `"subtype":"system"`) {
				return
			}
			arrived(data)
			// What cannot be acknowledged comes again and is counted again; the wait for the count ends in any case.
			ack, err := json.Marshal(wire.ClientAck{Type: wire.TypeClientAck, BrokerMessageID: crowd.Field(data, "messageId")})
			if err == nil {
				_ = c.Write(ack)
			}
		})
		if err != nil {
			stop()
			return nil, err
		}
		all = append(all, c)
	}
	return stop, nil
}

// directs measures sends acknowledged per second while 16 recipients are pushed what was accepted and acknowledge it.
func (r *rig) directs(ctx context.Context, m *crowdMesh, how string) error {
	const recipients = 16
	var arrived atomic.Int64
	stop, err := m.listeners(ctx, recipients, func([]byte) { arrived.Add(1) })
	if err != nil {
		return err
	}
	defer stop()
	body := strings.Repeat("x", 256)
	sent := int64(0)
	for _, inFlight := range []int{1, 64} {
		for _, clients := range []int{1, 8, 64} {
			all := make([]*sender, clients)
			errs := make([]error, clients)
			for i := range all {
				if all[i], err = m.sender(ctx, fmt.Sprint("sender-", i), inFlight); err != nil {
					return err
				}
			}
			m.serial++
			var wg sync.WaitGroup
			begin := time.Now()
			for i, s := range all {
				wg.Go(func() {
					for n := 0; errs[i] == nil && time.Since(begin) < r.span(); n++ {
						errs[i] = s.send(crowd.Send(fmt.Sprintf("%d-%d-%d", m.serial, i, n), m.members[(i+n)%recipients].PublicKey(), body))
					}
					errs[i] = errors.Join(errs[i], s.quiet())
				})
			}
			wg.Wait()
			elapsed := time.Since(begin)
			var lat sample
			for i, s := range all {
				s.Close()
				lat = append(lat, s.lat...)
				if errs[i] != nil {
					return errs[i]
				}
			}
			sent += int64(len(lat))
			if err := awaitCount(&arrived, sent); err != nil {
				return err
			}
			delivered := time.Since(begin)
			rate := float64(len(lat)) / elapsed.Seconds()
			note := ""
			switch {
			case inFlight == 1 && clients == 1:
				note = fmt.Sprintf("  (reference 325/s, ack 2.9 ms: %.1f times that)", rate/325)
			case inFlight == 1 && clients == 8:
				note = fmt.Sprintf("  (reference 263/s: %.1f times that)", rate/263)
			case inFlight > 1 && how == "--sync always":
				note = "  (aim ≥ 2,000/s)"
			case inFlight > 1:
				note = "  (aim ≥ 10,000/s)"
			}
			row(fmt.Sprintf("broker %s: DMs, %d client(s), %d in flight", how, clients, inFlight), "%.0f/s accepted, %.0f/s delivered; ack p50 %s  p99 %s%s",
				rate, float64(len(lat))/delivered.Seconds(), ms(lat.median()), ms(lat.at(0.99)), note)
		}
	}
	return nil
}

// awaitCount waits for deliveries, as long as they come.
func awaitCount(n *atomic.Int64, want int64) error {
	last, since := n.Load(), time.Now()
	for n.Load() < want {
		if now := n.Load(); now > last {
			last, since = now, time.Now()
		}
		if time.Since(since) > time.Minute {
			return fmt.Errorf("%d of %d messages came", n.Load(), want)
		}
		time.Sleep(time.Millisecond)
	}
	if got := n.Load(); got > want {
		return fmt.Errorf("%d messages came, %d were sent", got, want)
	}
	return nil
}

// pushes measures from the send of one message to its push, one at a time.
func (r *rig) pushes(ctx context.Context, m *crowdMesh, how string) error {
	came := make(chan string, 16)
	stop, err := m.listeners(ctx, 1, func(data []byte) { came <- crowd.Field(data, "client_message_id") })
	if err != nil {
		return err
	}
	defer stop()
	s, err := m.sender(ctx, "one", 1)
	if err != nil {
		return err
	}
	defer s.Close()
	m.serial++
	var lat sample
	for i := range r.n(500) {
		id := fmt.Sprintf("%d-%d", m.serial, i)
		d, err := timed(func() error {
			if err := s.send(crowd.Send(id, m.members[0].PublicKey(), "hello")); err != nil {
				return err
			}
			select {
			case got := <-came:
				if got != id {
					return fmt.Errorf("%s came, %s was sent", got, id)
				}
				return nil
			case <-time.After(30 * time.Second):
				return fmt.Errorf("no push of %s within 30 s", id)
			}
		})
		if err != nil {
			return err
		}
		lat = append(lat, d)
	}
	row(fmt.Sprintf("broker %s: send → push", how), "p50 %s  p99 %s  (aim p50 < 2 ms; reference 6.2 ms: %.2f of that)", ms(lat.median()), ms(lat.at(0.99)), float64(lat.median())/float64(6200*time.Microsecond))
	return nil
}

// broadcasts measures one message to a hundred members: one at a time for the time of each push, then eight in flight for the rate.
func (r *rig) broadcasts(ctx context.Context, m *crowdMesh, how string) error {
	var arrived atomic.Int64
	var mu sync.Mutex
	var lat sample
	var begun time.Time
	all := make(chan struct{}, 1) // one broadcast has reached everybody
	stop, err := m.listeners(ctx, broadcastTo, func([]byte) {
		now := time.Now()
		mu.Lock()
		lat = append(lat, now.Sub(begun))
		mu.Unlock()
		if arrived.Add(1)%broadcastTo == 0 {
			select {
			case all <- struct{}{}:
			default:
			}
		}
	})
	if err != nil {
		return err
	}
	defer stop()
	s, err := m.sender(ctx, "caster", 8)
	if err != nil {
		return err
	}
	defer s.Close()
	m.serial++
	sent := int64(0)
	cast := func() error {
		sent++
		return s.send(crowd.Send(fmt.Sprintf("%d-%d", m.serial, sent), "*", "to all of you"))
	}
	for range r.n(50) {
		mu.Lock()
		begun = time.Now()
		mu.Unlock()
		if err := cast(); err != nil {
			return err
		}
		select {
		case <-all:
		case <-time.After(time.Minute):
			return fmt.Errorf("%d of %d pushes came", arrived.Load(), sent*broadcastTo)
		}
	}
	mu.Lock()
	single := lat
	lat = nil
	mu.Unlock()
	row(fmt.Sprintf("broker %s: broadcast to %d, every push", how, broadcastTo), "p50 %s  p99 %s  (reference, to 50: 4.6 and 10.9 ms)", ms(single.median()), ms(single.at(0.99)))
	before := arrived.Load()
	begin := time.Now()
	for time.Since(begin) < r.span() {
		if err := cast(); err != nil {
			return err
		}
	}
	if err := awaitCount(&arrived, sent*broadcastTo); err != nil {
		return err
	}
	rate := float64(arrived.Load()-before) / time.Since(begin).Seconds()
	row("  eight in flight", "%.0f pushes/s  (reference, to 50: 12,000/s: %.2f times that)", rate, rate/12000)
	return nil
}
