package httpapi

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"strconv"

	"claudemesh/bus"
)

// refusal is a refusal of this layer itself, in the form of the bus's.
func refusal(code int, reason, detail string) *bus.APIError {
	return &bus.APIError{Code: code, Reason: reason, Detail: detail}
}

// answer writes a JSON value.
func answer(w http.ResponseWriter, code int, v any) {
	body, err := json.Marshal(v)
	if err != nil {
		fail(w, err)
		return
	}
	write(w, code, body)
}

func write(w http.ResponseWriter, code int, body []byte) {
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("Content-Length", strconv.Itoa(len(body)+1))
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(code)
	_, _ = w.Write(append(body, '\n')) // the caller has gone
}

// fail writes a refusal: the bus's as it came, and for what went wrong on the way one of the same form.
func fail(w http.ResponseWriter, err error) {
	api := asAPI(err)
	code := api.Code
	if code < 400 || code > 599 {
		code = 500
	}
	write(w, code, api.Body())
}

// object is a JSON object whose values stay as they came.
type object map[string]json.RawMessage

func parse(raw json.RawMessage) (object, error) {
	o := object{}
	if err := json.Unmarshal(raw, &o); err != nil {
		return nil, errors.New("the bus answered with something else than an object")
	}
	return o, nil
}

// also gives fields a second name, the reference's; a field that is there already stays.
func (o object) also(names map[string]string) object {
	for second, name := range names {
		if v, ok := o[name]; ok {
			if _, taken := o[second]; !taken {
				o[second] = v
			}
		}
	}
	return o
}

// set adds a field of ours; a value that is no JSON would be a mistake of this package.
func (o object) set(name string, v any) object {
	if b, err := json.Marshal(v); err == nil {
		o[name] = b
	}
	return o
}

// list reads the objects of an array field. An absent one is empty.
func (o object) list(name string) ([]object, error) {
	out := []object{}
	if raw, ok := o[name]; ok {
		if err := json.Unmarshal(raw, &out); err != nil {
			return nil, errors.New("the bus answered with something else than a list")
		}
	}
	if out == nil {
		out = []object{}
	}
	return out, nil
}

// codeOf is the status that fail will write.
func codeOf(err error) int { return asAPI(err).Code }

// asAPI is an error as it would be answered.
func asAPI(err error) *bus.APIError {
	var api *bus.APIError
	if errors.As(err, &api) {
		return api
	}
	return lost(err)
}

// lost is the refusal for what went wrong between here and the handler.
func lost(err error) *bus.APIError {
	switch {
	case errors.Is(err, bus.ErrUnauthorized):
		return refusal(401, "invalid_token", "the daemon does not accept this token any more")
	case errors.Is(err, bus.ErrDenied):
		return refusal(403, "forbidden", "this token does not allow it")
	case errors.Is(err, context.DeadlineExceeded):
		return refusal(504, "timeout", "no answer in time; what was asked may have been done")
	case errors.Is(err, bus.ErrInterrupted):
		return refusal(503, "interrupted", "the connection to the bus broke meanwhile; what was asked may have been done")
	case errors.Is(err, bus.ErrNoDaemon):
		return refusal(503, "unavailable", "the daemon is stopping; nothing was done")
	}
	return refusal(500, "internal", "")
}
