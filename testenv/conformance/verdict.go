package conformance

import "fmt"

// Verdict is what a check found.
type Verdict string

const (
	Same        Verdict = "same"        // as the reference was measured
	Corrected   Verdict = "corrected"   // better than the reference, which has the defect named
	Defect      Verdict = "defect"      // as the reference was measured, where that is a defect
	Unsupported Verdict = "unsupported" // the broker does not know the type, or never answers it
	Differs     Verdict = "differs"     // neither
)

// Result is one check's finding. Defect is the number of the reference's defect that Corrected or Defect is about, 0 otherwise.
type Result struct {
	Type    string   `json:"type"`
	Check   string   `json:"check"`
	Verdict Verdict  `json:"verdict"`
	Defect  int      `json:"defect,omitempty"`
	Detail  string   `json:"detail,omitempty"`
	Drove   []string `json:"drove"` // the types of all frames that were sent for it
}

// Summary counts results.
type Summary struct {
	Same, Corrected, Defects, Unsupported, Differs int
}

func (s *Summary) add(v Verdict) {
	switch v {
	case Same:
		s.Same++
	case Corrected:
		s.Corrected++
	case Defect:
		s.Defects++
	case Unsupported:
		s.Unsupported++
	case Differs:
		s.Differs++
	}
}

// finding is what a check returns; the zero value is Same.
type finding struct {
	verdict Verdict
	defect  int
	detail  string
}

func same() finding { return finding{verdict: Same} }

func corrected(defect int) finding { return finding{verdict: Corrected, defect: defect} }

func defective(defect int, format string, args ...any) finding {
	return finding{verdict: Defect, defect: defect, detail: fmt.Sprintf(format, args...)}
}

func differs(format string, args ...any) finding {
	return finding{verdict: Differs, detail: fmt.Sprintf(format, args...)}
}

// stop ends a check from inside of a helper.
type stop struct{ finding }

// check is one question about one message type.
type check struct {
	frame string // the type it is about
	name  string // a sentence: what must hold
	run   func(*play) finding
}
