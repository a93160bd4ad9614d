package mesh

import "testing"

func TestNormalInvite(t *testing.T) {
	for in, want := range map[string]string{
		"claudemesh://join/abc_-":                     "ic://join/abc_-",
		"claudemesh://mesh.example.org/i/ABCD2345":    "https://mesh.example.org/i/ABCD2345",
		"claudemesh://mesh.example.org:7900/x/i/ABC/": "https://mesh.example.org:7900/x/i/ABC",
		"CLAUDEMESH://127.0.0.1:7900/i/ABCD2345":      "http://127.0.0.1:7900/i/ABCD2345",
		"claudemesh://[::1]:7900/i/ABCD2345":          "http://[::1]:7900/i/ABCD2345",
		"claudemesh://localhost/i/ABCD2345":           "http://localhost/i/ABCD2345",
		"claudemesh://i/ABCD2345":                     "ABCD2345",
		"claudemesh://user:pw@host/i/ABCD2345":        "claudemesh://user:pw@host/i/ABCD2345",
		"claudemesh:x":                                "claudemesh:x",
		" https://mesh.example.org/i/ABCD2345 ":       "https://mesh.example.org/i/ABCD2345",
		"ABCD2345":                                    "ABCD2345",
		"%zz":                                         "%zz",
	} {
		if got := NormalInvite(in); got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
}
