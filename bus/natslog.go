package bus

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"

	"github.com/jonboulle/clockwork"
)

// serverLog is the embedded server's logger. A fatal error is recorded and never ends the process: the stock logger would exit, and no logger at all
// would swallow it (a busy port then looks like a running server). Lines that a client can provoke are limited in number.
type serverLog struct {
	log   *slog.Logger
	quiet *burst

	mu    sync.Mutex
	fatal error
}

func newServerLog(log *slog.Logger, clock clockwork.Clock) *serverLog {
	return &serverLog{log: log, quiet: &burst{clock: clock, n: 20}}
}

// err is the first fatal error, if any.
func (l *serverLog) err() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.fatal
}

func (l *serverLog) Fatalf(format string, v ...any) {
	msg := fmt.Sprintf(format, v...)
	l.mu.Lock()
	if l.fatal == nil {
		l.fatal = errors.New(msg)
	}
	l.mu.Unlock()
}

func (l *serverLog) Errorf(format string, v ...any)  { l.limited(slog.LevelWarn, format, v) }
func (l *serverLog) Warnf(format string, v ...any)   { l.limited(slog.LevelWarn, format, v) }
func (l *serverLog) Noticef(format string, v ...any) { l.limited(slog.LevelDebug, format, v) }
func (l *serverLog) Debugf(string, ...any)           {}
func (l *serverLog) Tracef(string, ...any)           {}

func (l *serverLog) limited(level slog.Level, format string, v []any) {
	if ok, swallowed := l.quiet.allow(); ok {
		args := []any{"text", fmt.Sprintf(format, v...)}
		if swallowed > 0 {
			args = append(args, "swallowed", swallowed)
		}
		l.log.Log(context.Background(), level, "nats server", args...)
	}
}
