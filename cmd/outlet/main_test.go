package main

import (
	"testing"

	"github.com/culvert-net/culvert/internal/cli/clitest"
)

func TestMain(m *testing.M) { clitest.Main(m, main, "outlet") }

func TestScripts(t *testing.T) { clitest.Run(t) }
