package daemon

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"claudemesh/bridge"
	"claudemesh/bus"
	"claudemesh/wire"
)

// BrokerAsk says which broker to ask how it does, and what to show.
type BrokerAsk struct {
	URL    string // ws, wss, http or https
	Token  string // the admin token; empty: only what everybody may know
	CAFile string // authorities beside the system's
	// TLSCert is the file of the certificate that the broker must show: for one on this machine, whose name no authority vouches for.
	TLSCert string
}

// BrokerReport is what it answered. Details is nil when the token did not allow them.
type BrokerReport struct {
	URL     string             `json:"url"`
	Health  wire.BrokerHealth  `json:"health"`
	Details *wire.BrokerStatus `json:"details,omitempty"`
	Denied  string             `json:"denied,omitempty"` // why there are no details: the broker's word
}

const (
	askTimeout   = 10 * time.Second
	maxAskAnswer = 1 << 20
)

// AskBroker asks a running broker. Errors: an APIError bad_broker_url, broker_unreachable, broker_not_trusted or broker_refused.
func AskBroker(ctx context.Context, a BrokerAsk) (r BrokerReport, err error) {
	if r.URL, err = BrokerHTTP(a.URL); err != nil {
		return r, &bus.APIError{Code: 400, Reason: "bad_broker_url", Detail: err.Error()}
	}
	trust, err := a.trust()
	if err != nil {
		return r, &bus.APIError{Code: 400, Reason: "bad_ca_file", Detail: err.Error()}
	}
	client := &http.Client{
		Timeout: askTimeout, Transport: &http.Transport{DisableKeepAlives: true, TLSClientConfig: trust},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	if status, err := askJSON(ctx, client, r.URL, "/health", "", &r.Health); err != nil || status != http.StatusOK || r.Health.Status == "" {
		if err == nil {
			err = &bus.APIError{Code: 502, Reason: "broker_refused", Detail: fmt.Sprintf("%s answered HTTP %d: is it a claudemesh broker?", r.URL, status)}
		}
		return r, err
	}
	var details wire.BrokerStatus
	status, err := askJSON(ctx, client, r.URL, "/status", a.Token, &details)
	var refused *bus.APIError
	switch {
	case errors.As(err, &refused) && refused.Reason == "broker_refused": // a broker without that route
		r.Denied = "not_served"
	case err != nil:
		return r, err
	case status != http.StatusOK:
		r.Denied = details.Error
	default:
		r.Details = &details
	}
	return r, nil
}

func (a BrokerAsk) trust() (*tls.Config, error) {
	switch {
	case a.TLSCert != "":
		return bridge.PinFile(a.TLSCert)
	case a.CAFile != "":
		return bridge.TrustFile(a.CAFile)
	}
	return nil, nil
}

func askJSON(ctx context.Context, client *http.Client, base, path, bearer string, out any) (int, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, base+path, nil)
	if err != nil {
		return 0, &bus.APIError{Code: 400, Reason: "bad_broker_url", Detail: unwrapURL(err).Error()}
	}
	if bearer != "" {
		req.Header.Set("Authorization", "Bearer "+bearer)
	}
	res, err := client.Do(req)
	if err != nil {
		return 0, unreachable(base, err)
	}
	defer res.Body.Close()
	data, err := io.ReadAll(io.LimitReader(res.Body, maxAskAnswer))
	if err != nil {
		return 0, unreachable(base, err)
	}
	if json.Unmarshal(bytes.TrimSpace(data), out) != nil {
		return res.StatusCode, &bus.APIError{Code: 502, Reason: "broker_refused", Detail: fmt.Sprintf("%s answered HTTP %d without JSON: is it a claudemesh broker?", base, res.StatusCode)}
	}
	return res.StatusCode, nil
}
