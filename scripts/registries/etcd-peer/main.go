// Command etcd-peer registers and finds instances in etcd with the clients that Go programs use: Go
// kit's sd/etcdv3, and etcd's own endpoints and resolver packages.
//
//	etcd-peer ENDPOINT gokit register KEY HOST:PORT     registers until SIGTERM
//	etcd-peer ENDPOINT gokit watch PREFIX               prints the instances, one line per change
//	etcd-peer ENDPOINT grpc register KEY HOST:PORT JSON
//	etcd-peer ENDPOINT grpc watch TARGET                as the endpoints package lists them
//	etcd-peer ENDPOINT grpc resolve TARGET              as the gRPC resolver gives them to a channel
//
// The key of "grpc register" is TARGET/KEY: the target is the part before its last slash.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/url"
	"os"
	"os/signal"
	"sort"
	"strings"
	"syscall"
	"time"

	"github.com/go-kit/kit/sd"
	"github.com/go-kit/kit/sd/etcdv3"
	"github.com/go-kit/log"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/naming/endpoints"
	naming "go.etcd.io/etcd/client/v3/naming/resolver"
	"google.golang.org/grpc/resolver"
	"google.golang.org/grpc/serviceconfig"
)

const usage = "usage: etcd-peer ENDPOINT gokit|grpc register|watch|resolve ARGUMENT..."

func main() {
	if len(os.Args) == 2 && os.Args[1] == "--help" {
		fmt.Println(usage)
		return
	}
	if len(os.Args) < 5 {
		fail(fmt.Errorf("too few arguments; %s", usage))
	}
	endpoint, library, action, arguments := os.Args[1], os.Args[2], os.Args[3], os.Args[4:]
	var err error
	switch library + " " + action {
	case "gokit register":
		err = goKitRegister(endpoint, arguments[0], arguments[1])
	case "gokit watch":
		err = goKitWatch(endpoint, arguments[0])
	case "grpc register":
		err = grpcRegister(endpoint, arguments[0], arguments[1], arguments[2])
	case "grpc watch":
		err = grpcWatch(endpoint, arguments[0])
	case "grpc resolve":
		err = grpcResolve(endpoint, arguments[0])
	default:
		err = fmt.Errorf("unknown action; %s", usage)
	}
	if err != nil {
		fail(err)
	}
}

func fail(err error) {
	fmt.Fprintln(os.Stderr, "etcd-peer:", err)
	os.Exit(1)
}

func show(entries []string) {
	sort.Strings(entries)
	fmt.Printf("[%s]\n", strings.Join(entries, " "))
}

func untilStopped() {
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	<-signals
}

func goKitClient(endpoint string) (etcdv3.Client, error) {
	options := etcdv3.ClientOptions{DialTimeout: 10 * time.Second, DialKeepAlive: 10 * time.Second}
	return etcdv3.NewClient(context.Background(), []string{endpoint}, options)
}

func goKitRegister(endpoint, key, address string) error {
	client, err := goKitClient(endpoint)
	if err != nil {
		return err
	}
	service := etcdv3.Service{Key: key, Value: address, TTL: etcdv3.NewTTLOption(time.Second, 5*time.Second)}
	registrar := etcdv3.NewRegistrar(client, service, log.NewNopLogger())
	registrar.Register()
	fmt.Println("registered")
	untilStopped()
	registrar.Deregister()
	return nil
}

func goKitWatch(endpoint, prefix string) error {
	client, err := goKitClient(endpoint)
	if err != nil {
		return err
	}
	instancer, err := etcdv3.NewInstancer(client, prefix, log.NewNopLogger())
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
		show(event.Instances)
	}
	return nil
}

func grpcClient(endpoint string) (*clientv3.Client, error) {
	return clientv3.New(clientv3.Config{Endpoints: []string{endpoint}, DialTimeout: 10 * time.Second})
}

func grpcRegister(endpoint, key, address, metadata string) error {
	client, err := grpcClient(endpoint)
	if err != nil {
		return err
	}
	manager, err := endpoints.NewManager(client, key[:strings.LastIndex(key, "/")])
	if err != nil {
		return err
	}
	var value any
	if err := json.Unmarshal([]byte(metadata), &value); err != nil {
		return err
	}
	ctx := context.Background()
	lease, err := client.Grant(ctx, 5)
	if err != nil {
		return err
	}
	entry := endpoints.Endpoint{Addr: address, Metadata: value}
	if err := manager.AddEndpoint(ctx, key, entry, clientv3.WithLease(lease.ID)); err != nil {
		return err
	}
	answers, err := client.KeepAlive(ctx, lease.ID)
	if err != nil {
		return err
	}
	go func() {
		for range answers {
		}
	}()
	fmt.Println("registered")
	untilStopped()
	return manager.DeleteEndpoint(ctx, key)
}

func grpcWatch(endpoint, target string) error {
	client, err := grpcClient(endpoint)
	if err != nil {
		return err
	}
	manager, err := endpoints.NewManager(client, target)
	if err != nil {
		return err
	}
	channel, err := manager.NewWatchChannel(context.Background())
	if err != nil {
		return err
	}
	known := map[string]string{}
	for updates := range channel {
		for _, update := range updates {
			if update.Op == endpoints.Delete {
				delete(known, update.Key)
				continue
			}
			metadata, err := json.Marshal(update.Endpoint.Metadata)
			if err != nil {
				return err
			}
			known[update.Key] = update.Endpoint.Addr + "=" + string(metadata)
		}
		entries := make([]string, 0, len(known))
		for _, entry := range known {
			entries = append(entries, entry)
		}
		show(entries)
	}
	return nil
}

func grpcResolve(endpoint, target string) error {
	client, err := grpcClient(endpoint)
	if err != nil {
		return err
	}
	builder, err := naming.NewBuilder(client)
	if err != nil {
		return err
	}
	parsed, err := url.Parse("etcd:///" + target)
	if err != nil {
		return err
	}
	if _, err := builder.Build(resolver.Target{URL: *parsed}, printer{}, resolver.BuildOptions{}); err != nil {
		return err
	}
	untilStopped()
	return nil
}

// printer is the channel that the resolver gives its addresses to.
type printer struct{}

func (printer) UpdateState(state resolver.State) error {
	addresses := make([]string, 0, len(state.Addresses))
	for _, address := range state.Addresses {
		addresses = append(addresses, address.Addr)
	}
	show(addresses)
	return nil
}

func (printer) ReportError(err error) { fmt.Fprintln(os.Stderr, err) }

func (printer) NewAddress([]resolver.Address) {}

func (printer) ParseServiceConfig(string) *serviceconfig.ParseResult { return nil }
