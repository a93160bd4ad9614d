package release

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestAnAnswerIsAVersionAndAnAddressOrNothing(t *testing.T) {
	for name, c := range map[string]struct {
		answer string
		want   Latest
		err    error
	}{
		"plain":                            {`{"version":"1.2.3","url":"https://example.org/r"}`, Latest{"1.2.3", "https://example.org/r"}, nil},
		"of GitHub":                        {`{"url":"https://api/x","tag_name":"v1.2.3","html_url":"https://github/x"}`, Latest{"1.2.3", "https://github/x"}, nil},
		"an address that is not https":     {`{"version":"1.2.3","url":"javascript:x"}`, Latest{Version: "1.2.3"}, nil},
		"an address with a password":       {`{"version":"1.2.3","url":"https://u:p@h/"}`, Latest{Version: "1.2.3"}, nil},
		"a version that moves the cursor":  {`{"version":"1.2.3\u001b[2J"}`, Latest{}, ErrAnswer},
		"a word":                           {`{"version":"latest"}`, Latest{}, ErrAnswer},
		"nothing":                          {``, Latest{}, ErrAnswer},
		"a list":                           {`[]`, Latest{}, ErrAnswer},
		"a version that goes on for pages": {`{"version":"1.2.3-` + strings.Repeat("a", maxText) + `"}`, Latest{}, ErrAnswer},
	} {
		t.Run(name, func(t *testing.T) {
			if got, err := decode([]byte(c.answer)); got != c.want || !errors.Is(err, c.err) {
				t.Errorf("%+v, %v", got, err)
			}
		})
	}
}

func TestAServerIsAskedOverTLSOrOnThisMachine(t *testing.T) {
	elsewhere := httptest.NewServer(http.RedirectHandler("http://example.org/", http.StatusFound))
	defer elsewhere.Close()
	here := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/" {
			http.NotFound(w, r)
			return
		}
		_, _ = w.Write([]byte(`{"version":"2.0.0"}`))
	}))
	defer here.Close()
	if got, err := Fetch(context.Background(), here.URL+"/"); err != nil || got.Version != "2.0.0" || !got.Newer("1.9.9") || got.Newer("2.0.0") || got.Newer("dev") {
		t.Errorf("%+v, %v", got, err)
	}
	if _, err := Fetch(context.Background(), here.URL+"/gone"); err == nil || !strings.Contains(err.Error(), "404") {
		t.Errorf("%v", err)
	}
	for _, address := range []string{"http://example.org/", "ftp://127.0.0.1/", "https://u:p@example.org/", "", "://", elsewhere.URL} {
		if _, err := Fetch(context.Background(), address); !errors.Is(err, ErrAddress) {
			t.Errorf("%q: %v", address, err)
		}
	}
}

func TestWhatWasHeardIsRememberedAndCheckedAgain(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "new")
	want := Heard{Latest{"1.2.3", "https://example.org/"}, 1, 2}
	if err := Remember(dir, want); err != nil {
		t.Fatal(err)
	}
	if got := Recall(dir); got != want {
		t.Errorf("%+v", got)
	}
	for _, text := range []string{`{"version":"x\u001b","asked_at":1}`, `no`, ``} {
		if err := os.WriteFile(filepath.Join(dir, file), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if got := Recall(dir); got != (Heard{}) {
			t.Errorf("%s: %+v", text, got)
		}
	}
}

func FuzzDecode(f *testing.F) {
	f.Add([]byte(`{"version":"1.2.3","url":"https://example.org/r"}`))
	f.Add([]byte(`{"tag_name":"v1.2.3-rc.1+b","html_url":"https://x"}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		l, err := decode(b)
		if err == nil && (l.Version == "" || strings.ContainsAny(l.Version+l.URL, "\x00\x1b\n ")) {
			t.Errorf("%+v", l)
		}
	})
}
