package broker

func runAsChild() bool { return false }
