package mesh

import (
	"net/netip"
	"net/url"
	"strings"
)

// NormalInvite rewrites a claudemesh:// link, as a browser hands it over, into a form that [InviteCode] and [ParseInvite] know; anything else stays as it is:
//
//	claudemesh://join/<token>               ic://join/<token>
//	claudemesh://<host>[:port][/path]/i/<code>   https://<host>[:port][/path]/i/<code>, http where the host is this machine
//	claudemesh://i/<code>                   <code>: which broker it is of has to be said
func NormalInvite(s string) string {
	s = strings.TrimSpace(s)
	u, err := url.Parse(s)
	if err != nil || !strings.EqualFold(u.Scheme, "claudemesh") || u.User != nil {
		return s
	}
	path := strings.TrimSuffix(u.EscapedPath(), "/")
	switch {
	case u.Host == "join":
		return "ic://join" + path
	case u.Host == "i":
		return strings.TrimPrefix(path, "/")
	case u.Host == "":
		return s
	}
	scheme := "https"
	if ip, err := netip.ParseAddr(u.Hostname()); u.Hostname() == "localhost" || err == nil && ip.IsLoopback() {
		scheme = "http"
	}
	return scheme + "://" + u.Host + path
}
