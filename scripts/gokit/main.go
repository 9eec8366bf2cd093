// Command gokit is the tutorial's pair in Go, as users of Go kit write it: a trim service that registers
// itself in Consul, and an add service that calls it over HTTP/JSON. A second add service does the same
// with grpc-go's own balancing. scripts/gokit-mix.sh and scripts/drill.sh run them beside the project's
// own services.
package main

import (
	"errors"
	"fmt"
	"os"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "gokit:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) == 0 {
		return errors.New("expected a service: trim, add or add-grpc")
	}
	switch args[0] {
	case "trim":
		return serveTrim(args[1:])
	case "add":
		return serveAdd(args[1:])
	case "--help":
		fmt.Println("usage: gokit trim|add|add-grpc [FLAG...]")
		return nil
	case "add-grpc":
		return serveAddGRPC(args[1:])
	default:
		return fmt.Errorf("unknown service %q: expected trim, add or add-grpc", args[0])
	}
}
