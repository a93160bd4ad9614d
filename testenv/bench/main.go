// Command bench prints the figures of one run on this machine: medians, and ratios of things measured side by side. `make bench` runs it.
//
// It drives the real binary: a daemon of its own in a temporary HOME, one-shot commands as child processes, load from clients in this process over the
// daemon's socket. Nothing leaves the machine, and every loop is bounded.
package main

import (
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
)

func main() {
	bin := flag.String("bin", "bin/claudemesh", "the binary to measure")
	quick := flag.Bool("quick", false, "a tenth of the repetitions")
	full := flag.Bool("full", false, "also what takes minutes: 10,000 connections, a million stored messages")
	only := flag.String("only", "", "one part: daemon, lastmetre, load, idle or restart (the last three are the broker's)")
	flag.Parse()
	path, err := filepath.Abs(*bin)
	if err == nil {
		err = run(path, *only, options{quick: *quick, full: *full})
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// options say how much is measured.
type options struct{ quick, full bool }

func run(bin, only string, o options) error {
	home, err := os.MkdirTemp("/tmp", "cmbench")
	if err != nil {
		return err
	}
	r := &rig{bin: bin, home: home, options: o}
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGINT, syscall.SIGTERM)
	go func() {
		<-stop
		r.close()
		os.Exit(130)
	}()
	defer r.close()
	steps := []func() error{r.machine, r.size}
	for _, part := range []struct {
		name  string
		steps []func() error
	}{
		{"daemon", []func() error{r.start, r.autoStart, r.setUp, r.idleFresh, r.oneShot, r.accepts, r.endToEnd, r.sustained, r.tap, r.idleLoaded}},
		{"lastmetre", []func() error{r.setUp, r.hooks, r.surfaced, r.launches, r.fifty}},
		{"load", []func() error{r.brokerLoad}},
		{"idle", []func() error{r.idleConnections}},
		{"restart", []func() error{r.restarts}},
	} {
		if only == "" || only == part.name {
			steps = append(steps, part.steps...)
		}
	}
	for _, step := range steps {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}
