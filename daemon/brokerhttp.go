package daemon

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"claudemesh/bridge"
	"claudemesh/bus"
)

// The HTTP side of brokers, for requests that no member makes: enrolling, and making a mesh. It is reached the way the links are.

const (
	enrollTimeout  = 10 * time.Second
	maxEnrollReply = 64 << 10
)

// brokerRequest is one HTTP request to a broker. Body is encoded as JSON, nil is none.
type brokerRequest struct {
	method, brokerURL, path, bearer string
	body                            any
}

// post sends JSON and reads a JSON answer of any status.
func (d *Daemon) post(ctx context.Context, brokerURL, path, bearer string, body, reply any) (int, error) {
	return d.ask(ctx, brokerRequest{http.MethodPost, brokerURL, path, bearer, body}, reply)
}

func (d *Daemon) ask(ctx context.Context, r brokerRequest, reply any) (int, error) {
	base, err := bridge.HTTPBase(r.brokerURL)
	if err != nil {
		return 0, &bus.APIError{Code: 400, Reason: "bad_broker_url", Detail: err.Error()}
	}
	var body io.Reader
	if r.body != nil {
		data, err := json.Marshal(r.body)
		if err != nil {
			return 0, fmt.Errorf("encode request: %w", err)
		}
		body = bytes.NewReader(data)
	}
	ctx, cancel := context.WithTimeout(ctx, enrollTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, r.method, base+r.path, body)
	if err != nil {
		return 0, fmt.Errorf("make request: %w", err)
	}
	req.Header.Set("Accept", "application/json")
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	if r.bearer != "" {
		req.Header.Set("Authorization", "Bearer "+r.bearer)
	}
	trust, err := d.tls()
	if err != nil {
		return 0, &bus.APIError{Code: 400, Reason: "bad_ca_file", Detail: err.Error()}
	}
	client := &http.Client{
		Transport:     &http.Transport{DialContext: d.dial, DisableKeepAlives: true, TLSClientConfig: trust},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	res, err := client.Do(req)
	if err != nil {
		return 0, unreachable(r.brokerURL, err)
	}
	defer res.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(res.Body, maxEnrollReply))
	if err != nil {
		return 0, &bus.APIError{Code: 503, Reason: "broker_unreachable", Detail: fmt.Sprintf("the broker at %s broke off: %v", r.brokerURL, err)}
	}
	if err := json.Unmarshal(answer, reply); err != nil {
		return res.StatusCode, &bus.APIError{Code: 502, Reason: "broker_refused", Detail: fmt.Sprintf("%s answered HTTP %d without JSON: is it a claudemesh broker?", r.brokerURL, res.StatusCode)}
	}
	return res.StatusCode, nil
}

// unreachable says why there was no answer. An authority that is not trusted is the user's to decide about, so it has a reason of its own.
func unreachable(brokerURL string, err error) error {
	var unknown x509.UnknownAuthorityError
	if errors.As(err, &unknown) {
		return &bus.APIError{
			Code: 503, Reason: "broker_not_trusted",
			Detail: fmt.Sprintf("the certificate of the broker at %s is signed by an authority that this machine does not trust", brokerURL),
		}
	}
	return &bus.APIError{Code: 503, Reason: "broker_unreachable", Detail: fmt.Sprintf("the broker at %s cannot be reached: %v", brokerURL, unwrapURL(err))}
}

// socketURL is the WebSocket URL of a broker's HTTP address.
func socketURL(base string) string {
	return "ws" + strings.TrimPrefix(strings.TrimSuffix(base, "/"), "http") + "/ws"
}

// unwrapURL drops the request line that net/http puts in front of its errors: it may hold what does not belong in a message.
func unwrapURL(err error) error {
	var u *url.Error
	if errors.As(err, &u) {
		return u.Err
	}
	return err
}
