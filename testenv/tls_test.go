package testenv_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"claudemesh/bridge"
	"claudemesh/bus"
	"claudemesh/daemon"
	"claudemesh/testenv"
)

// authority is a certificate authority that no system trusts.
type authority struct {
	t    *testing.T
	dir  string
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	file string // its certificate, PEM
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	a := &authority{t: t, dir: t.TempDir()}
	a.key = a.newKey()
	now := time.Now()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test authority"}, NotBefore: now.Add(-time.Hour), NotAfter: now.Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, a.key.Public(), a.key)
	if err != nil {
		t.Fatal(err)
	}
	if a.cert, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	a.file = a.write("ca.pem", "CERTIFICATE", der)
	return a
}

func (a *authority) newKey() *ecdsa.PrivateKey {
	a.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		a.t.Fatal(err)
	}
	return key
}

func (a *authority) write(name, kind string, der []byte) string {
	a.t.Helper()
	path := filepath.Join(a.dir, name)
	if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
		a.t.Fatal(err)
	}
	return path
}

// issue makes, or replaces, the certificate of 127.0.0.1.
func (a *authority) issue(serial int64) (cert, key string) {
	a.t.Helper()
	k := a.newKey()
	now := time.Now()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(serial), NotBefore: now.Add(-time.Hour), NotAfter: now.Add(time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, k.Public(), a.key)
	if err != nil {
		a.t.Fatal(err)
	}
	secret, err := x509.MarshalPKCS8PrivateKey(k)
	if err != nil {
		a.t.Fatal(err)
	}
	return a.write("cert.pem", "CERTIFICATE", der), a.write("key.pem", "PRIVATE KEY", secret)
}

// serveTLS runs a standalone broker with a certificate until the test ends.
func serveTLS(t *testing.T, cert, key string) (daemon.BrokerInfo, string) {
	t.Helper()
	data := testenv.TempDir(t)
	ctx, stop := context.WithCancel(context.Background())
	ready, ended := make(chan daemon.BrokerInfo, 1), make(chan error, 1)
	go func() {
		ended <- daemon.ServeBroker(ctx, daemon.BrokerOptions{Listen: "127.0.0.1:0", DataDir: data, TLSCert: cert, TLSKey: key, Ready: func(i daemon.BrokerInfo) { ready <- i }})
	}()
	t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	select {
	case i := <-ready:
		return i, data
	case err := <-ended:
		ended <- nil
		t.Fatal(err)
	}
	return daemon.BrokerInfo{}, ""
}

func TestABrokerWithACertificateOfItsOwnAuthority(t *testing.T) {
	ca := newAuthority(t)
	cert, key := ca.issue(2)
	info, data := serveTLS(t, cert, key)
	trusting := func(o *daemon.Options) { o.CAFile = ca.file }
	alice := testenv.NewMachine(t, testenv.WithName("alice"), trusting)
	create := bus.MeshCreate{Name: "team", BrokerURL: info.URL, AdminTokenFile: filepath.Join(data, daemon.AdminTokenFile)}

	t.Run("is not spoken to by who does not know the authority", func(t *testing.T) {
		stranger := testenv.NewMachine(t)
		err := testenv.Try(stranger.User(), bus.DaemonSubject(bus.User, bus.OpMeshCreate), create, nil)
		refusal(t, err, 503, "broker_not_trusted")
	})
	var made bus.MeshJoined
	alice.Do(bus.OpMeshCreate, create, &made)
	alice.WaitLink("team")
	var invite bus.MeshInvite
	alice.Do(bus.OpMeshShare, bus.MeshShare{Mesh: "team", MaxUses: 2}, &invite)

	t.Run("two machines talk over wss, one with the authority's file beside its config", func(t *testing.T) {
		bob := testenv.NewMachine(t, testenv.WithName("bob"))
		text, err := os.ReadFile(ca.file)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(bob.Home, ".claudemesh", "ca.pem"), text, 0o600); err != nil {
			t.Fatal(err)
		}
		bob.Do(bus.OpMeshJoin, bus.MeshJoin{Invite: invite.URL}, nil)
		bob.WaitLink("team")
		b := bob.Session("team", "bob")
		a := alice.Session("team", "ada")
		alice.WaitPeer("team", "bob")
		a.Send("bob", "over tls")
		b.WaitMessage("over tls")
		t.Run("and requests that members sign go the same way", func(t *testing.T) {
			var list bus.MeshList
			bob.Do(bus.OpMeshList, bus.MeshQuery{Server: true}, &list)
			if len(list.Meshes) != 1 || list.Meshes[0].Server == nil || list.Meshes[0].Server.Members != 2 {
				t.Errorf("%+v", list)
			}
		})
	})
	t.Run("serves a renewed certificate without a restart", func(t *testing.T) {
		ca.issue(3)
		testenv.Wait(t, "the renewed certificate", nil, func() bool {
			_, err := daemon.AskBroker(t.Context(), daemon.BrokerAsk{URL: info.LocalURL, TLSCert: cert})
			return err == nil
		})
	})
	t.Run("is asked by its data directory's file, or by the authority", func(t *testing.T) {
		r, err := daemon.AskBroker(t.Context(), daemon.BrokerAsk{URL: info.URL, CAFile: ca.file})
		if err != nil || r.Health.DB != "up" || r.Details == nil || r.Details.Meshes != 1 {
			t.Errorf("%+v %v", r, err)
		}
		_, err = daemon.AskBroker(t.Context(), daemon.BrokerAsk{URL: info.URL})
		refusal(t, err, 503, "broker_not_trusted")
	})
}

func TestAnAuthorityFileWithoutAuthority(t *testing.T) {
	path := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(path, []byte("nothing"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := bridge.TrustFile(path); !errors.Is(err, bridge.ErrCAFile) {
		t.Errorf("%v", err)
	}
}
