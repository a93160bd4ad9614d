package daemon

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"log/slog"
	"math/big"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/jonboulle/clockwork"
)

func TestWhereABrokerListens(t *testing.T) {
	proxy := []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}
	for _, tc := range []struct {
		name string
		o    BrokerOptions
		want error
		open bool // figures are told to everybody
	}{
		{"not in clear beyond this machine", BrokerOptions{Listen: "0.0.0.0:7900"}, ErrInsecureListen, false},
		{"not in clear on every interface", BrokerOptions{Listen: ":7900"}, ErrInsecureListen, false},
		{"not in clear under a name", BrokerOptions{Listen: "mesh.example.org:7900"}, ErrInsecureListen, false},
		{"not with half a certificate", BrokerOptions{Listen: "127.0.0.1:7900", TLSCert: "x"}, ErrTLSFiles, true},
		{"in clear on purpose", BrokerOptions{Listen: "0.0.0.0:7900", Insecure: true}, nil, false},
		{"with a certificate", BrokerOptions{Listen: ":7900", TLSCert: "x", TLSKey: "y"}, nil, false},
		{"behind a proxy", BrokerOptions{Listen: "[::]:7900", BehindProxy: true}, nil, false},
		{"behind a proxy on loopback, which asks for anybody", BrokerOptions{Listen: "127.0.0.1:7900", TrustedProxies: proxy}, nil, false},
		{"on loopback", BrokerOptions{Listen: "localhost:7900"}, nil, true},
		{"on IPv6 loopback", BrokerOptions{Listen: "[::1]:7900"}, nil, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if err := tc.o.check(); !errors.Is(err, tc.want) {
				t.Errorf("%v", err)
			}
			if got := tc.o.openStatus(); got != tc.open {
				t.Errorf("figures open: %v", got)
			}
		})
	}
}

func TestHowABrokerIsReached(t *testing.T) {
	host, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		at              net.TCPAddr
		o               BrokerOptions
		url, local, tls string
	}{
		{net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 7}, BrokerOptions{}, "ws://127.0.0.1:7/ws", "http://127.0.0.1:7", ""},
		{net.TCPAddr{IP: net.IPv6unspecified, Port: 7}, BrokerOptions{TLSCert: "c"}, "wss://" + host + ":7/ws", "https://127.0.0.1:7", "c"},
		{net.TCPAddr{IP: net.IPv4(10, 0, 0, 1), Port: 7}, BrokerOptions{PublicURL: "wss://m/ws"}, "wss://m/ws", "http://10.0.0.1:7", ""},
	} {
		var i BrokerInfo
		if i.describe(&tc.at, tc.o); i.URL != tc.url || i.LocalURL != tc.local || i.TLSCert != tc.tls {
			t.Errorf("%+v", i)
		}
	}
}

func TestARenewedCertificate(t *testing.T) {
	dir := t.TempDir()
	cert, key := filepath.Join(dir, "c"), filepath.Join(dir, "k")
	issue := func(serial int64) {
		t.Helper()
		k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		template := &x509.Certificate{SerialNumber: big.NewInt(serial), NotAfter: time.Now().Add(time.Hour)}
		der, err := x509.CreateCertificate(rand.Reader, template, template, k.Public(), k)
		if err != nil {
			t.Fatal(err)
		}
		secret, err := x509.MarshalPKCS8PrivateKey(k)
		if err != nil {
			t.Fatal(err)
		}
		for path, b := range map[string]*pem.Block{cert: {Type: "CERTIFICATE", Bytes: der}, key: {Type: "PRIVATE KEY", Bytes: secret}} {
			if err := os.WriteFile(path, pem.EncodeToMemory(b), 0o600); err != nil {
				t.Fatal(err)
			}
			// A stamp of its own, whatever the file system's resolution.
			if err := os.Chtimes(path, time.Time{}, time.Unix(serial, 0)); err != nil {
				t.Fatal(err)
			}
		}
	}
	issue(1)
	clock := clockwork.NewFakeClock()
	c, err := loadCertificate(cert, key, clock, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	serves := func(serial int64) {
		t.Helper()
		clock.Advance(rereadCert)
		pair, err := c.get(nil)
		if err != nil || pair.Leaf.SerialNumber.Int64() != serial {
			t.Errorf("serves %v, %v", pair.Leaf.SerialNumber, err)
		}
	}
	serves(1)
	if err := os.WriteFile(key, []byte("half written"), 0o600); err != nil {
		t.Fatal(err)
	}
	serves(1)
	if err := os.Remove(cert); err != nil {
		t.Fatal(err)
	}
	serves(1)
	issue(2)
	serves(2)
	if _, err := loadCertificate(key, cert, clock, slog.New(slog.DiscardHandler)); err == nil {
		t.Error("took a key for a certificate")
	}
}
