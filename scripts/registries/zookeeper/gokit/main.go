// Command zookeeper-peer registers and finds instances in ZooKeeper with Go kit's sd/zk.
//
//	zookeeper-peer SERVER register BASE NAME HOST:PORT    registers until it is killed or gets SIGTERM
//	zookeeper-peer SERVER watch PATH                      prints the instances, one line per change
package main

import (
	"errors"
	"fmt"
	"os"
	"os/signal"
	"sort"
	"strings"
	"syscall"
	"time"

	"github.com/go-kit/kit/sd"
	"github.com/go-kit/kit/sd/zk"
	"github.com/go-kit/log"
)

const usage = "usage: zookeeper-peer SERVER register BASE NAME HOST:PORT | watch PATH"

func main() {
	if len(os.Args) == 2 && os.Args[1] == "--help" {
		fmt.Println(usage)
		return
	}
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "zookeeper-peer:", err)
		os.Exit(1)
	}
}

func run(arguments []string) error {
	if len(arguments) < 3 {
		return errors.New(usage)
	}
	client, err := zk.NewClient([]string{arguments[0]}, log.NewNopLogger(),
		zk.ConnectTimeout(20*time.Second), zk.SessionTimeout(4*time.Second))
	if err != nil {
		return err
	}
	switch {
	case arguments[1] == "register" && len(arguments) == 5:
		service := zk.Service{Path: arguments[2], Name: arguments[3], Data: []byte(arguments[4])}
		if err := client.Register(&service); err != nil {
			return err
		}
		fmt.Println("registered")
		signals := make(chan os.Signal, 1)
		signal.Notify(signals, syscall.SIGTERM)
		<-signals
		return client.Deregister(&service)
	case arguments[1] == "watch":
		return watch(client, arguments[2])
	}
	return errors.New(usage)
}

func watch(client zk.Client, path string) error {
	instancer, err := zk.NewInstancer(client, path, log.NewNopLogger())
	if err != nil {
		return err
	}
	defer instancer.Stop()
	events := make(chan sd.Event, 16)
	instancer.Register(events)
	for event := range events {
		if event.Err != nil {
			return event.Err
		}
		sort.Strings(event.Instances)
		fmt.Printf("[%s]\n", strings.Join(event.Instances, " "))
	}
	return nil
}
