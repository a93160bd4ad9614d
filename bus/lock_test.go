package bus

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"sync"
	"testing"
)

func TestLock(t *testing.T) {
	dir := filepath.Join(shortDir(t), "daemon")
	if Held(dir) {
		t.Fatal("held before the directory exists")
	}
	l, err := AcquireLock(dir)
	must(t, err)
	t.Run("the directory and the file are private", func(t *testing.T) {
		if runtime.GOOS == "windows" {
			t.Skip("modes mean nothing on Windows")
		}
		for path, want := range map[string]fs.FileMode{dir: 0o700, filepath.Join(dir, lockFile): 0o600} {
			info, err := os.Stat(path)
			must(t, err)
			if info.Mode().Perm() != want {
				t.Errorf("%s has mode %o", path, info.Mode().Perm())
			}
		}
	})
	t.Run("while it is held, a second daemon is turned away", func(t *testing.T) {
		if !Held(dir) {
			t.Error("not seen as held")
		}
		_, err := AcquireLock(dir)
		wantErr(t, err, ErrLocked)
	})
	must(t, l.Release())
	t.Run("a file that nobody holds means nothing", func(t *testing.T) {
		if _, err := os.Stat(filepath.Join(dir, lockFile)); err != nil {
			t.Fatal(err)
		}
		if Held(dir) {
			t.Error("seen as held")
		}
	})
	t.Run("looking does not keep a daemon from starting", func(t *testing.T) {
		stop := make(chan struct{})
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(func() {
				for {
					select {
					case <-stop:
						return
					default:
						Held(dir)
					}
				}
			})
		}
		for range 1000 {
			l, err := AcquireLock(dir)
			must(t, err)
			must(t, l.Release())
		}
		close(stop)
		wg.Wait()
	})
	t.Run("of many that start at once exactly one gets it", func(t *testing.T) {
		got := make(chan *Lock, 16)
		var wg sync.WaitGroup
		for range 16 {
			wg.Go(func() {
				if l, err := AcquireLock(dir); err == nil {
					got <- l
				} else if !errors.Is(err, ErrLocked) {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if len(got) != 1 {
			t.Fatalf("%d hold it", len(got))
		}
		must(t, (<-got).Release())
	})
}

func TestInfo(t *testing.T) {
	dir := shortDir(t)
	_, err := ReadInfo(dir)
	wantErr(t, err, fs.ErrNotExist)
	want := Info{PID: 7, Version: "1.2.3", Socket: "/x/daemon.sock", TCPURL: "nats://127.0.0.1:1", StartedAt: 1, Args: []string{"--no-tcp"}}
	must(t, WriteInfo(dir, Info{PID: 1}))
	must(t, WriteInfo(dir, want))
	got, err := ReadInfo(dir)
	must(t, err)
	if !reflect.DeepEqual(got, want) {
		t.Errorf("read %+v", got)
	}
	info, err := os.Stat(filepath.Join(dir, infoFile))
	must(t, err)
	if runtime.GOOS != "windows" && info.Mode().Perm() != 0o600 {
		t.Errorf("mode is %o", info.Mode().Perm())
	}
	b, err := os.ReadFile(filepath.Join(dir, infoFile))
	must(t, err)
	if string(b) != `{"pid":7,"version":"1.2.3","socket":"/x/daemon.sock","tcp_url":"nats://127.0.0.1:1","started_at":1,"args":["--no-tcp"]}`+"\n" {
		t.Errorf("file is %s", b)
	}
	must(t, os.WriteFile(filepath.Join(dir, infoFile), []byte("{"), 0o600))
	if _, err := ReadInfo(dir); err == nil {
		t.Error("half a file was read")
	}
}
