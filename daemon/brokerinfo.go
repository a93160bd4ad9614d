package daemon

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"

	"claudemesh/bridge"
)

// brokerInfoFile is where a standalone broker says how it is reached, in its data directory. It is a hint: the lock says whether one runs.
const brokerInfoFile = "broker-info.json"

// BrokerInfo is that file. It holds no secret.
type BrokerInfo struct {
	PID       int    `json:"pid"`
	Version   string `json:"version"`
	StartedAt int64  `json:"started_at"`          // Unix milliseconds
	Listen    string `json:"listen,omitempty"`    // address; empty when only the store is open
	URL       string `json:"url,omitempty"`       // as clients reach it, ws:// or wss://
	LocalURL  string `json:"local_url,omitempty"` // http:// or https://, from this machine
	TLSCert   string `json:"tls_cert,omitempty"`  // file of its certificate
	StoreURL  string `json:"store_url,omitempty"` // nats://, of the door to the store
}

// describe fills in the addresses.
func (i *BrokerInfo) describe(at net.Addr, o BrokerOptions) {
	host, port, err := net.SplitHostPort(at.String())
	if err != nil {
		return
	}
	scheme := "ws"
	if o.TLSCert != "" {
		scheme, i.TLSCert = "wss", o.TLSCert
	}
	local, public := host, host
	if ip := net.ParseIP(host); ip != nil && ip.IsUnspecified() {
		local = "127.0.0.1"
		if public, err = os.Hostname(); err != nil || public == "" {
			public = local
		}
	}
	i.LocalURL = "http" + strings.TrimPrefix(scheme, "ws") + "://" + net.JoinHostPort(local, port)
	if i.URL = o.PublicURL; i.URL == "" {
		i.URL = scheme + "://" + net.JoinHostPort(public, port) + "/ws"
	}
}

// ReadBrokerInfo reads what the broker of a data directory says about itself; fs.ErrNotExist when none has started there, or the last one ended.
func ReadBrokerInfo(dataDir string) (BrokerInfo, error) {
	var i BrokerInfo
	path := filepath.Join(dataDir, brokerInfoFile)
	b, err := os.ReadFile(path)
	if err != nil {
		return i, fmt.Errorf("read broker info: %w", err)
	}
	if err := json.Unmarshal(b, &i); err != nil {
		return i, fmt.Errorf("read broker info: %s: %w", path, err)
	}
	return i, nil
}

func writeBrokerInfo(dataDir string, i BrokerInfo) error {
	b, err := json.Marshal(i)
	if err != nil {
		return fmt.Errorf("encode broker info: %w", err)
	}
	return writePrivate(filepath.Join(dataDir, brokerInfoFile), string(b)+"\n")
}

func removeBrokerInfo(dataDir string) error {
	if err := os.Remove(filepath.Join(dataDir, brokerInfoFile)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove broker info: %w", err)
	}
	return nil
}

// BrokerHTTP is the HTTP address of a broker named by a ws, wss, http or https URL.
func BrokerHTTP(url string) (string, error) {
	if rest, ok := strings.CutPrefix(url, "http"); ok {
		url = "ws" + rest
	}
	base, err := bridge.HTTPBase(url)
	if err != nil {
		return "", err
	}
	return strings.TrimSuffix(base, "/"), nil
}
