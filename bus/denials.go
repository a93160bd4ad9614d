package bus

import (
	"context"
	"errors"
	"regexp"
	"strconv"
	"strings"
	"sync"

	"github.com/nats-io/nats.go"
)

// violation is how the server names the subject that it refused, a Go-quoted string.
var violation = regexp.MustCompile(`Permissions Violation for (Publish|Subscription) to ("(?:[^"\\]|\\.)*")`)

// denials turns the server's permission errors, which arrive apart from the call that caused them, into answers to that call: a call waits for its
// subject, and an error that names the subject ends the wait.
type denials struct {
	inbox string // prefix of our own replies; a refusal of it denies everything

	mu        sync.Mutex
	deaf      bool // our inbox was refused
	calls     map[string]map[*waiter]struct{}
	subs      map[string]map[*waiter]struct{}
	handled   error         // the last violation that was handled
	handledCh chan struct{} // closed and replaced when handled changes
}

type waiter struct {
	cancel context.CancelCauseFunc
	denied bool
}

func newDenials(inbox string) *denials {
	return &denials{
		inbox: inbox + ".", calls: map[string]map[*waiter]struct{}{}, subs: map[string]map[*waiter]struct{}{}, handledCh: make(chan struct{}),
	}
}

// watch derives a context that ends with cause ErrDenied when the server refuses subject, ErrInterrupted when the connection breaks.
func (d *denials) watch(ctx context.Context, subject string) (context.Context, func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	w := &waiter{cancel: cancel}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.deaf {
		cancel(ErrDenied)
	}
	put(d.calls, subject, w)
	return ctx, func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		remove(d.calls, subject, w)
		cancel(nil)
	}
}

// watchSubscription notes refusals of a subscription to subject until done is called.
func (d *denials) watchSubscription(subject string) (denied func() bool, done func()) {
	w := &waiter{}
	d.mu.Lock()
	defer d.mu.Unlock()
	put(d.subs, subject, w)
	return func() bool {
			d.mu.Lock()
			defer d.mu.Unlock()
			return w.denied
		}, func() {
			d.mu.Lock()
			defer d.mu.Unlock()
			remove(d.subs, subject, w)
		}
}

// settled waits until the handler has seen the connection's latest error, as latest tells it. Errors are handled in the order of their arrival, so any
// refusal from before the call is noted by then.
func (d *denials) settled(ctx context.Context, latest func() error) error {
	for {
		d.mu.Lock()
		handled, next := d.handled, d.handledCh
		d.mu.Unlock()
		last := latest()
		if !errors.Is(last, nats.ErrPermissionViolation) || handled == last { //nolint:errorlint // the very same value is meant
			return nil
		}
		select {
		case <-next:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// handle takes an asynchronous error of the connection and reports whether a waiting call was told.
func (d *denials) handle(err error) bool {
	if !errors.Is(err, nats.ErrPermissionViolation) {
		return false
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.handled = err
	close(d.handledCh)
	d.handledCh = make(chan struct{})

	m := violation.FindStringSubmatch(err.Error())
	if m == nil {
		return false
	}
	subject, unquoteErr := strconv.Unquote(m[2])
	if unquoteErr != nil {
		return false
	}
	if m[1] == "Publish" {
		for w := range d.calls[subject] {
			w.cancel(ErrDenied)
		}
		return len(d.calls[subject]) > 0
	}
	for w := range d.subs[subject] {
		w.denied = true
	}
	if strings.HasPrefix(subject, d.inbox) {
		d.deaf = true
		for _, ws := range d.calls {
			for w := range ws {
				w.cancel(ErrDenied)
			}
		}
		return true
	}
	return len(d.subs[subject]) > 0
}

// interrupt ends every call under way.
func (d *denials) interrupt() {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, ws := range d.calls {
		for w := range ws {
			w.cancel(ErrInterrupted)
		}
	}
}

func put(m map[string]map[*waiter]struct{}, subject string, w *waiter) {
	if m[subject] == nil {
		m[subject] = map[*waiter]struct{}{}
	}
	m[subject][w] = struct{}{}
}

func remove(m map[string]map[*waiter]struct{}, subject string, w *waiter) {
	delete(m[subject], w)
	if len(m[subject]) == 0 {
		delete(m, subject)
	}
}
