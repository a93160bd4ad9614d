package service

import (
	"bytes"
	"context"
	"encoding/xml"
	"errors"
	"fmt"
	"time"
)

// label is the reference's.
const label = "com.claudemesh.daemon"

// launchd's bootout returns before the service is gone, and a bootstrap meanwhile fails.
const (
	goneLimit = 20 * time.Second
	gonePoll  = 100 * time.Millisecond
)

type launchd struct{ domain string }

// Launchd is the launchd of a user's login on the screen.
func Launchd(home string, uid int, run Runner) *Manager {
	return &Manager{File: home + "/Library/LaunchAgents/" + label + ".plist", kind: launchd{fmt.Sprintf("gui/%d", uid)}, run: run}
}

func (launchd) supervises() bool { return true }

func (launchd) accepts(Spec) error { return nil }

// render cannot name exit codes: launchd knows success and failure only. A daemon that is told that it is supervised ends with success where no new start helps.
// After every other end launchd waits ThrottleInterval; it has no growing pause.
func (launchd) render(s Spec) []byte {
	var b bytes.Buffer
	b.WriteString(xml.Header)
	b.WriteString(`<!DOCTYPE plist PUBLIC "-//Apple//DTD PLIST 1.0//EN" "http://www.apple.com/DTDs/PropertyList-1.0.dtd">` + "\n<plist version=\"1.0\">\n<dict>\n")
	entry := func(key, value string) { fmt.Fprintf(&b, "\t<key>%s</key>\n\t%s\n", key, value) }
	entry("Label", plistString(label))
	var args string
	for _, a := range []string{s.Binary, "daemon", "up", "--foreground", "--supervised"} {
		args += "\n\t\t" + plistString(a)
	}
	entry("ProgramArguments", "<array>"+args+"\n\t</array>")
	if len(s.Env) > 0 {
		var env string
		for _, kv := range s.Env {
			env += "\n\t\t<key>" + escapeXML(kv[0]) + "</key>\n\t\t" + plistString(kv[1])
		}
		entry("EnvironmentVariables", "<dict>"+env+"\n\t</dict>")
	}
	entry("RunAtLoad", "<true/>")
	entry("KeepAlive", "<dict>\n\t\t<key>SuccessfulExit</key>\n\t\t<false/>\n\t</dict>")
	entry("ThrottleInterval", "<integer>30</integer>")
	entry("ExitTimeOut", "<integer>20</integer>")
	entry("Umask", "<integer>63</integer>") // 0077
	entry("ProcessType", plistString("Background"))
	entry("StandardOutPath", plistString(s.Log))
	entry("StandardErrorPath", plistString(s.Log))
	b.WriteString("</dict>\n</plist>\n")
	return b.Bytes()
}

func plistString(s string) string { return "<string>" + escapeXML(s) + "</string>" }

func escapeXML(s string) string {
	var b bytes.Buffer
	_ = xml.EscapeText(&b, []byte(s)) // a buffer takes everything
	return b.String()
}

func (l launchd) answers(ctx context.Context, run Runner) error {
	_, err := run(ctx, "launchctl", "print", l.domain)
	return err
}

func (l launchd) active(ctx context.Context, run Runner) bool {
	_, err := run(ctx, "launchctl", "print", l.domain+"/"+label)
	return err == nil
}

func (l launchd) stop(ctx context.Context, run Runner) error {
	if !l.active(ctx, run) {
		return nil
	}
	if _, err := run(ctx, "launchctl", "bootout", l.domain+"/"+label); err != nil && l.active(ctx, run) {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, goneLimit)
	defer cancel()
	poll := time.NewTicker(gonePoll)
	defer poll.Stop()
	for l.active(ctx, run) {
		select {
		case <-ctx.Done():
			return errors.New("it does not end")
		case <-poll.C:
		}
	}
	return nil
}

func (l launchd) start(ctx context.Context, run Runner, file string) error {
	// A user may have disabled it once; bootstrap would be refused.
	if _, err := run(ctx, "launchctl", "enable", l.domain+"/"+label); err != nil {
		return err
	}
	if l.active(ctx, run) { // loaded, and its program has ended
		_, err := run(ctx, "launchctl", "kickstart", l.domain+"/"+label)
		return err
	}
	_, err := run(ctx, "launchctl", "bootstrap", l.domain, file)
	return err
}

func (l launchd) forget(context.Context, Runner) error { return nil }
