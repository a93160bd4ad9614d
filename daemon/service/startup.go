package service

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"
)

// startupName is what the user sees among the programs that start with the login.
const startupName = "claudemesh-daemon.cmd"

// startup is the Startup folder of a Windows user. What lies there is run at the login, by nobody who would look after it: a daemon that crashes is started
// by the next command that needs one. A real service of Windows needs an administrator, and runs outside of the user's home.
type startup struct{ self string }

// Startup is the folder of programs that start with a Windows login; appData is %APPDATA%, self this program.
func Startup(appData, self string, run Runner) *Manager {
	return &Manager{File: filepath.Join(appData, "Microsoft", "Windows", "Start Menu", "Programs", "Startup", startupName), kind: startup{self}, run: run}
}

// accepts refuses the one character that ends a quoted word; no path of Windows has it.
func (startup) accepts(s Spec) error {
	for _, text := range append([]string{s.Binary}, values(s.Env)...) {
		if strings.Contains(text, `"`) {
			return fmt.Errorf("%q: %w", text, ErrBadPath)
		}
	}
	return nil
}

func values(env [][2]string) (out []string) {
	for _, kv := range env {
		out = append(out, kv[1])
	}
	return out
}

// render writes a batch file. Within quotes, only % means something to it. daemon up leaves the daemon in the background and writes its log by itself.
func (startup) render(s Spec) []byte {
	var b strings.Builder
	b.WriteString("@echo off\r\nsetlocal\r\nchcp 65001 >nul\r\n")
	plain := strings.NewReplacer("%", "%%")
	for _, kv := range s.Env {
		fmt.Fprintf(&b, "set \"%s=%s\"\r\n", kv[0], plain.Replace(kv[1]))
	}
	fmt.Fprintf(&b, "\"%s\" daemon up\r\n", plain.Replace(s.Binary))
	return []byte(b.String())
}

func (startup) supervises() bool { return false }

func (startup) answers(context.Context, Runner) error { return nil }

func (u startup) active(ctx context.Context, run Runner) bool {
	_, err := run(ctx, u.self, "daemon", "status")
	return err == nil
}

func (u startup) stop(ctx context.Context, run Runner) error {
	_, err := run(ctx, u.self, "daemon", "down")
	return err
}

func (startup) start(ctx context.Context, run Runner, file string) error {
	_, err := run(ctx, "cmd", "/c", file)
	return err
}

func (startup) forget(context.Context, Runner) error { return nil }
