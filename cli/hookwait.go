package cli

import (
	"context"
	"errors"
	"io"
	"os"
	"time"

	"github.com/google/uuid"
	"github.com/nats-io/nats.go"

	"claudemesh/bus"
	"claudemesh/mcp/feed"
	"claudemesh/mcp/frame"
)

// exitWake is how an asyncRewake hook wakes its client: what it wrote to stderr is put before the model.
const exitWake = 2

// Times of a hook that waits.
const (
	waitAgain = 30 * time.Second // it asks at least so often: that is its sign of life
	waitRetry = time.Second      // between attempts to reach a daemon that restarts
	waitGive  = 5 * time.Minute  // without any daemon for so long it ends: the next end of a turn starts another
)

func hookWaitVerb() verb {
	return verb{
		name: "wait", short: "wait for messages, and wake the client with them",
		long: `Runs while the client is idle (as an asyncRewake hook of SessionStart and Stop). It ends with 2 and the messages on stderr when some have come, and with 0
when the client works, when a newer one waits, or when it belongs to no session.`,
		examples: []string{"claudemesh hook wait"},
		fails:    []string{"2  messages have come: they are on stderr"},
		run: func(ctx context.Context, c *call) error {
			w := &hookWaiter{call: c, id: uuid.NewString()}
			if in, err := c.hookInput(); err == nil {
				w.start = in
			}
			text, err := w.wait(ctx)
			if err != nil && c.getenv(envHookLog) == "1" {
				c.ui.warn("hook wait: %v", err)
			}
			if text == "" {
				return nil
			}
			if _, err := io.WriteString(c.stderr, text); err != nil {
				return nil // nobody listens: the daemon finds no evidence, and tries the next rung
			}
			return &exitError{exitWake}
		},
	}
}

// hookWaiter waits for one client.
type hookWaiter struct {
	*call
	id    string
	start hookInputJSON // what the client started it for
	known bool          // the daemon has named the session
}

var errWaitEnds = errors.New("the wait is over")

// wait returns what is to be shown, or nothing when the wait is over. It survives the daemon's restarts.
func (w *hookWaiter) wait(ctx context.Context) (string, error) {
	lost := w.clock.Now()
	for {
		text, err := w.listen(ctx, &lost)
		switch {
		case text != "" || errors.Is(err, errWaitEnds):
			return text, nil
		case errors.Is(err, feed.ErrNoToken) || errors.Is(err, bus.ErrUnauthorized):
			return "", err // the session has ended
		case ctx.Err() != nil:
			return "", nil
		case !w.known && w.getenv(feed.EnvSession) == "":
			return "", err // of a client that nobody launched and that is no session yet: nothing is lost by not waiting
		case w.clock.Since(lost) > waitGive || !parentLives():
			return "", err
		}
		select {
		case <-ctx.Done():
			return "", nil
		case <-w.clock.After(waitRetry):
		}
	}
}

// listen waits over one connection.
func (w *hookWaiter) listen(ctx context.Context, lost *time.Time) (string, error) {
	n, err := w.running(ctx)
	if err != nil {
		return "", err
	}
	defer n.Close()
	gone := n.Conn().StatusChanged(nats.CLOSED, nats.DISCONNECTED, nats.RECONNECTING)
	poked := make(chan struct{}, 1)
	req := bus.HookWait{Waiter: w.id, First: true, PID: w.clientPID(), Conversation: w.start.SessionID, Event: w.start.Event, Cwd: w.start.Cwd}
	listening := false
	for {
		reply := bus.HookReply{}
		if err := n.daemon(ctx, bus.OpHookWait, req, &reply); err != nil {
			return "", err
		}
		*lost, w.known = w.clock.Now(), w.known || reply.Session != ""
		if reply.Over || reply.Session == "" {
			return "", errWaitEnds
		}
		if text := frame.Batch(reply.Items, reply.More); text != "" {
			return text, nil
		}
		req.First = false
		if !listening {
			// Only now is it known whose pokes to listen to; what came in between is found by asking once more.
			listening = true
			if _, err := n.Subscribe(bus.WakeSubject(reply.Mesh, reply.Session, bus.RungWake), func(*nats.Msg) {
				select {
				case poked <- struct{}{}:
				default:
				}
			}); err != nil {
				return "", err
			}
			continue
		}
		select {
		case <-ctx.Done():
			return "", errWaitEnds
		case <-gone:
			return "", bus.ErrInterrupted
		case <-poked:
		case <-w.clock.After(waitAgain):
			if !parentLives() {
				return "", errWaitEnds
			}
		}
	}
}

// parentLives reports whether whoever started this process is still there: a hook outlives no client.
func parentLives() bool { return os.Getppid() > 1 }
