// Peer is grpc-go on the other side of the interop tests: grpc-go's own interop test service, the cases
// of its own interop client, and its clients of health and reflection.
//
//	peer serve N                      serves the test service on N free ports of 127.0.0.1
//	peer call ADDRESS CASE [TIMES]    runs a case against a server of the test service
//	peer standard ADDRESS CASE NAME   runs a case of health or reflection for the service NAME
//
// Each exits with 1 after a failure, and says why on standard error.
package main

import (
	"fmt"
	"os"
	"strconv"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(arguments []string) error {
	switch {
	case len(arguments) == 2 && arguments[0] == "serve":
		servers, err := strconv.Atoi(arguments[1])
		if err != nil {
			return err
		}
		return serve(servers)
	case (len(arguments) == 3 || len(arguments) == 4) && arguments[0] == "call":
		times := 1
		if len(arguments) == 4 {
			var err error
			if times, err = strconv.Atoi(arguments[3]); err != nil {
				return err
			}
		}
		return call(arguments[1], arguments[2], times)
	case len(arguments) == 4 && arguments[0] == "standard":
		return standard(arguments[1], arguments[2], arguments[3])
	}
	return fmt.Errorf("unknown arguments %q: see the comment in main.go", arguments)
}
