package broker

import "net/netip"

// closed are the networks that are not the public internet, beside those that netip itself knows (private, loopback, link-local, multicast, unspecified):
// the special-purpose registries of IANA.
func closed() [19]netip.Prefix {
	return [...]netip.Prefix{
		prefix("0.0.0.0/8"), prefix("100.64.0.0/10"), prefix("192.0.0.0/24"), prefix("192.0.2.0/24"), prefix("192.88.99.0/24"), prefix("198.18.0.0/15"),
		prefix("198.51.100.0/24"), prefix("203.0.113.0/24"), prefix("240.0.0.0/4"),
		prefix("::/96"), prefix("64:ff9b:1::/48"), prefix("100::/64"), prefix("2001::/23"), prefix("2001:db8::/32"), prefix("2002::/16"),
		prefix("3fff::/20"), prefix("5f00::/16"), prefix("fec0::/10"), prefix("ff00::/8"),
	}
}

func prefix(s string) netip.Prefix { return netip.MustParsePrefix(s) }

// public reports whether an address is one that anybody on the internet could reach. An IPv4 address inside of an IPv6 one is judged as itself.
func public(ip netip.Addr) bool {
	ip = ip.Unmap().WithZone("")
	if b := ip.As16(); ip.Is6() && prefix("64:ff9b::/96").Contains(ip) {
		ip = netip.AddrFrom4([4]byte(b[12:]))
	}
	if !ip.IsValid() || !ip.IsGlobalUnicast() || ip.IsPrivate() || ip.IsLoopback() || ip.IsLinkLocalUnicast() {
		return false
	}
	for _, p := range closed() {
		if p.Contains(ip) {
			return false
		}
	}
	return true
}
