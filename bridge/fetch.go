package bridge

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
)

// ErrPrivateAddress refuses a URL that a broker gave for an address of this machine or its network, where the broker itself is not.
var ErrPrivateAddress = errors.New("the broker names an address of this machine or its private network")

// Fetch gets a URL that the broker gave in place of bytes, as the reference does for files: without credentials, following no redirect. A broker out on the
// internet must not make us ask machines that only we can reach: such addresses are refused, whatever name stands for them, unless the broker has one, too. The
// caller closes the answer's body. The error has no URL in it: the URL is a bearer secret.
func (m *Mesh) Fetch(ctx context.Context, rawURL string) (*http.Response, error) {
	u, err := url.Parse(rawURL)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		return nil, errors.New("the broker's url is not one of http or https")
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return nil, errors.New("the broker's url cannot be asked for")
	}
	client := &http.Client{
		Transport:     &http.Transport{DialContext: m.dialPublic, DisableKeepAlives: true},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	res, err := client.Do(req)
	if err != nil {
		return nil, withoutLine(err)
	}
	return res, nil
}

// withoutLine drops the request line from an error of the HTTP client.
func withoutLine(err error) error {
	var line *url.Error
	if errors.As(err, &line) {
		err = line.Err
	}
	return fmt.Errorf("reach broker: %w", err)
}

// dialPublic connects to an address after looking at what it really is.
func (m *Mesh) dialPublic(ctx context.Context, network, addr string) (net.Conn, error) {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, err
	}
	broker, err := url.Parse(m.cfg.BrokerURL)
	if err != nil {
		return nil, err
	}
	if host == broker.Hostname() {
		return m.cfg.Dial(ctx, network, addr)
	}
	ips, err := net.DefaultResolver.LookupNetIP(ctx, "ip", host)
	if err != nil {
		return nil, err
	}
	if near := privateAddress(ips); near {
		own, err := net.DefaultResolver.LookupNetIP(ctx, "ip", broker.Hostname())
		if err != nil || !privateAddress(own) {
			return nil, ErrPrivateAddress
		}
	}
	for _, ip := range ips {
		var c net.Conn
		if c, err = m.cfg.Dial(ctx, network, net.JoinHostPort(ip.String(), port)); err == nil {
			return c, nil
		}
	}
	return nil, err
}

// privateAddress reports whether one of the addresses is not a public one.
func privateAddress(ips []netip.Addr) bool {
	for _, ip := range ips {
		ip = ip.Unmap()
		if !ip.IsGlobalUnicast() || ip.IsPrivate() {
			return true
		}
	}
	return len(ips) == 0
}
