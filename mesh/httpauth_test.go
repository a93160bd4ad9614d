package mesh

import (
	"crypto/rand"
	"errors"
	"strings"
	"testing"
	"time"
)

func TestHTTPAuth(t *testing.T) {
	who, err := NewIdentity(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	hash := strings.Repeat("ab", 32)
	header := SignHTTP(who, "POST", "/upload?x=1", "mesh0001", hash, time.UnixMilli(1777898000000))
	a, err := ParseHTTPAuth(header)
	if err != nil || a.MeshID != "mesh0001" || a.Pubkey != who.PublicKey() || a.BodyHash != hash || a.Timestamp != 1777898000000 {
		t.Fatal(a, err)
	}
	if !a.Verify("POST", "/upload?x=1") {
		t.Error("a good signature is refused")
	}
	for name, bad := range map[string]func(HTTPAuth) bool{
		"another method":    func(a HTTPAuth) bool { return a.Verify("PUT", "/upload?x=1") },
		"another target":    func(a HTTPAuth) bool { return a.Verify("POST", "/upload?x=2") },
		"another mesh":      func(a HTTPAuth) bool { a.MeshID = "mesh0002"; return a.Verify("POST", "/upload?x=1") },
		"another body":      func(a HTTPAuth) bool { a.BodyHash = strings.Repeat("cd", 32); return a.Verify("POST", "/upload?x=1") },
		"another timestamp": func(a HTTPAuth) bool { a.Timestamp++; return a.Verify("POST", "/upload?x=1") },
	} {
		if bad(a) {
			t.Errorf("%s is taken", name)
		}
	}
	for _, bad := range []string{"", "Bearer x", HTTPAuthScheme, strings.Replace(header, "key=", "kex=", 1), strings.Replace(header, "ts=1", "ts=x", 1), header + strings.Repeat(",a=b", 300)} {
		if _, err := ParseHTTPAuth(bad); !errors.Is(err, ErrBadAuth) {
			t.Errorf("%.40q: %v", bad, err)
		}
	}
}

func FuzzParseHTTPAuth(f *testing.F) {
	f.Add(HTTPAuthScheme + "mesh=m,key=" + strings.Repeat("a", 64) + ",ts=1,body=" + strings.Repeat("b", 64) + ",sig=" + strings.Repeat("c", 128))
	f.Fuzz(func(t *testing.T, s string) {
		a, err := ParseHTTPAuth(s)
		if (err == nil) != (a.MeshID != "") {
			t.Errorf("%+v, %v", a, err)
		}
		_ = a.Verify("GET", "/")
	})
}
