package conformance

import "slices"

// checks lists everything that is asked, family by family.
func checks() []check {
	return slices.Concat(helloChecks(), messageChecks(), presenceChecks(), recordChecks(), topicChecks(), fileChecks(), timerChecks(), adminChecks(), serviceChecks())
}
