package session

import (
	"context"
	"fmt"

	"claudemesh/daemon/groupcommit"
)

// Processes tells whether a process runs and when it started. HostProcesses asks the operating system.
type Processes interface {
	// Start returns the start time of a process in a form that is equal for two calls exactly if they mean the same
	// process, also over a reboot; empty when it can't be told. alive is false only when the process is surely gone.
	Start(pid int) (start string, alive bool, err error)
}

// HostProcesses is Processes of this machine. A process that has exited and waits for its parent (a zombie) is gone.
type HostProcesses struct{}

// Reap ends the live sessions whose process is gone or is another one with the same pid, and returns them. Whatever is
// not certain counts as alive: an error, an unknown pid or an unknown start time.
func (s *Store) Reap(ctx context.Context, p Processes) ([]Session, error) {
	live, err := s.Live(ctx)
	if err != nil {
		return nil, err
	}
	var gone []Session
	for _, l := range live {
		if l.PID != 0 && isGone(p, l.PID, l.StartTime) {
			gone = append(gone, l)
		}
	}
	if len(gone) == 0 {
		return nil, nil
	}
	var ended []Session
	err = s.db.Write(ctx, func(tx *groupcommit.Tx) error {
		for _, g := range gone {
			e, err := collect(tx.Query(reapSession, s.now(), g.ID, g.PID, g.StartTime, g.RegisteredAt.UnixMilli(), g.TokenHash[:]))
			if err != nil {
				return err
			}
			for _, one := range e {
				if err := s.leave(tx, one); err != nil {
					return err
				}
			}
			ended = append(ended, e...)
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("reap sessions: %w", err)
	}
	return ended, nil
}

func isGone(p Processes, pid int, recorded string) bool {
	start, alive, err := p.Start(pid)
	if err != nil {
		return false
	}
	return !alive || (recorded != "" && start != "" && start != recorded)
}
