//go:build race

package testenv_test

const raceFactor = 5
