package bridge

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
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
	text, err := io.ReadAll(io.LimitReader(f, maxCAFile))
	if err != nil {
		return nil, fmt.Errorf("read certificate authorities: %w", err)
	}
	roots, err := x509.SystemCertPool()
	if err != nil {
		roots = x509.NewCertPool() // a system without a store trusts nobody; the file may be all there is
	}
	if !roots.AppendCertsFromPEM(text) {
		return nil, fmt.Errorf("%w: %s", ErrCAFile, path)
	}
	return &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}, nil
}

// PinFile is a TLS configuration that accepts exactly the first certificate of a PEM file, whatever name it is for.
func PinFile(path string) (*tls.Config, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read certificate: %w", err)
	}
	block, rest := pem.Decode(data)
	for block != nil && block.Type != "CERTIFICATE" {
		block, rest = pem.Decode(rest)
	}
	if block == nil {
		return nil, fmt.Errorf("%w: %s", ErrCAFile, path)
	}
	want := block.Bytes
	return &tls.Config{
		MinVersion:         tls.VersionTLS12,
		InsecureSkipVerify: true, // replaced by the comparison below
		VerifyConnection: func(s tls.ConnectionState) error {
			if len(s.PeerCertificates) == 0 || !bytes.Equal(s.PeerCertificates[0].Raw, want) {
				return errors.New("the certificate is not the one in " + path)
			}
			return nil
		},
	}, nil
}
