package service

import (
	"context"
	"fmt"
	"strconv"
	"strings"
)

// unitName is the reference's, so that a user who comes from it has one service and not two.
const unitName = "claudemesh-daemon.service"

type systemd struct{}

// Systemd is the user's systemd. configHome is $XDG_CONFIG_HOME, or ~/.config.
func Systemd(configHome string, run Runner) *Manager {
	return &Manager{File: configHome + "/systemd/user/" + unitName, kind: systemd{}, run: run}
}

func (systemd) supervises() bool { return true }

// accepts refuses what systemd refuses in the name of a program.
func (systemd) accepts(s Spec) error {
	if strings.ContainsAny(s.Binary, `"'\`) {
		return fmt.Errorf("%q: %w", s.Binary, ErrBadPath)
	}
	return nil
}

func (systemd) render(s Spec) []byte {
	var b strings.Builder
	b.WriteString("[Unit]\nDescription=claudemesh daemon\n")
	// Five starts a minute are enough to survive a crash, and few enough to be noticed. From systemd 254 on the pauses grow, and it is not given up; an older
	// one does not know the words for that, and says so in its journal.
	b.WriteString("StartLimitIntervalSec=60\nStartLimitBurst=5\n\n[Service]\nType=simple\n")
	fmt.Fprintf(&b, "ExecStart=%s daemon up --foreground\n", unitWord(s.Binary))
	for _, kv := range s.Env {
		fmt.Fprintf(&b, "Environment=%s\n", unitWord(kv[0]+"="+kv[1]))
	}
	b.WriteString("Restart=on-failure\nRestartSec=2\nRestartSteps=5\nRestartMaxDelaySec=300\n")
	if len(s.NoRestart) > 0 {
		codes := make([]string, len(s.NoRestart))
		for i, c := range s.NoRestart {
			codes[i] = strconv.Itoa(c)
		}
		fmt.Fprintf(&b, "RestartPreventExitStatus=%s\n", strings.Join(codes, " "))
	}
	// The daemon stops within ten seconds of a request.
	log := strings.ReplaceAll(s.Log, "%", "%%")
	fmt.Fprintf(&b, "TimeoutStopSec=20\nUMask=0077\nStandardOutput=append:%s\nStandardError=append:%s\n\n[Install]\nWantedBy=default.target\n", log, log)
	return []byte(b.String())
}

// unitWord is one word of a unit: quoted, and free of specifiers. Variables ("$") are not looked for in the name of a program, nor in Environment.
func unitWord(s string) string {
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`, "%", "%%").Replace(s) + `"`
}

func (systemd) answers(ctx context.Context, run Runner) error {
	_, err := run(ctx, "systemctl", "--user", "show-environment")
	return err
}

func (systemd) active(ctx context.Context, run Runner) bool {
	_, err := run(ctx, "systemctl", "--user", "is-active", "--quiet", unitName)
	return err == nil
}

func (systemd) stop(ctx context.Context, run Runner) error {
	_, err := run(ctx, "systemctl", "--user", "disable", "--now", unitName)
	return err
}

func (systemd) start(ctx context.Context, run Runner, _ string) error {
	for _, args := range [][]string{{"daemon-reload"}, {"reset-failed", unitName}, {"enable", unitName}, {"restart", unitName}} {
		if _, err := run(ctx, "systemctl", append([]string{"--user"}, args...)...); err != nil && args[0] != "reset-failed" {
			return err
		}
	}
	return nil
}

func (systemd) forget(ctx context.Context, run Runner) error {
	_, err := run(ctx, "systemctl", "--user", "daemon-reload")
	return err
}
