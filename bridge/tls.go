package bridge

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"os"
)

// ErrCAFile is wrapped when a file of certificate authorities holds none.
var ErrCAFile = errors.New("no certificate authority in the file")

const maxCAFile = 1 << 20 // bytes

// TrustFile is a TLS configuration that trusts the authorities of a PEM file (at most 1 MiB) beside those of the system. Errors: ErrCAFile, the file's.
func TrustFile(path string) (*tls.Config, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("read certificate authorities: %w", err)
	}
	defer f.Close()
	pem, err := io.ReadAll(io.LimitReader(f, maxCAFile))
	if err != nil {
		return nil, fmt.Errorf("read certificate authorities: %w", err)
	}
	roots, err := x509.SystemCertPool()
	if err != nil {
		roots = x509.NewCertPool() // a system without a store trusts nobody; the file may be all there is
	}
	if !roots.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("%w: %s", ErrCAFile, path)
	}
	return &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}, nil
}
