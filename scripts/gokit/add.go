package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"time"

	"github.com/go-kit/kit/endpoint"
	"github.com/go-kit/kit/sd"
	"github.com/go-kit/kit/sd/consul"
	"github.com/go-kit/kit/sd/lb"
	grpctransport "github.com/go-kit/kit/transport/grpc"
	httptransport "github.com/go-kit/kit/transport/http"
	"github.com/go-kit/log"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"gokit/trimpb"
)

// Names the instances that have trimmed the two texts, as the project's add service does.
const instanceHeader = "x-trim-instance"

// trimmed is the answer of one instance.
type trimmed struct {
	text     string
	instance string
}

type concatRequest struct {
	A string `json:"a"`
	B string `json:"b"`
}

type concatResponse struct {
	V         string `json:"v"`
	Err       string `json:"err,omitempty"`
	instances string
}

// Headers implements httptransport.Headerer.
func (response concatResponse) Headers() http.Header {
	return http.Header{http.CanonicalHeaderKey(instanceHeader): {response.instances}}
}

// serveAdd serves POST /concat until it is killed.
func serveAdd(args []string) error {
	flags := flag.NewFlagSet("add", flag.ExitOnError)
	address := flags.String("consul", "localhost:8500", "address of Consul")
	trimName := flags.String("trim-name", "trim_service", "service name of the trim instances")
	listen := flags.String("listen", "127.0.0.1:0", "HTTP address; port 0 is any free one")
	attempts := flags.Int("retry-max", 3, "maximum attempts of a call")
	limit := flags.Duration("retry-timeout", 500*time.Millisecond, "time limit of a call with all attempts")
	if err := flags.Parse(args); err != nil {
		return err
	}
	agent, err := consulClient(*address)
	if err != nil {
		return err
	}
	logger := log.NewLogfmtLogger(log.NewSyncWriter(os.Stderr))
	instancer := consul.NewInstancer(consul.NewClient(agent), logger, *trimName, nil, true)
	defer instancer.Stop()
	endpointer := sd.NewEndpointer(instancer, trimFactory, logger)
	defer endpointer.Close()
	return serveConcat(*listen, lb.Retry(*attempts, *limit, lb.NewRoundRobin(endpointer)))
}

// serveConcat serves POST /concat over HTTP/JSON until it is killed.
func serveConcat(listen string, trim endpoint.Endpoint) error {
	concat := httptransport.NewServer(concatEndpoint(trim), decodeConcat, httptransport.EncodeJSONResponse)
	mux := http.NewServeMux()
	mux.Handle("POST /concat", concat)
	listener, err := net.Listen("tcp", listen)
	if err != nil {
		return err
	}
	fmt.Printf("add listening http=%s\n", listener.Addr())
	return http.Serve(listener, mux)
}

// trimFactory makes the endpoint of one instance.
func trimFactory(instance string) (endpoint.Endpoint, io.Closer, error) {
	connection, err := grpc.NewClient(instance, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return nil, nil, err
	}
	encode := func(_ context.Context, text any) (any, error) {
		return &trimpb.TrimRequest{S: text.(string)}, nil
	}
	decode := func(_ context.Context, reply any) (any, error) {
		return trimmed{text: reply.(*trimpb.TrimResponse).GetS(), instance: instance}, nil
	}
	client := grpctransport.NewClient(connection, "pb.Trim", "TrimSpace", encode, decode, trimpb.TrimResponse{})
	return client.Endpoint(), connection, nil
}

// concatEndpoint trims the two texts one after the other and joins them.
func concatEndpoint(trim endpoint.Endpoint) endpoint.Endpoint {
	return func(ctx context.Context, request any) (any, error) {
		texts := request.(concatRequest)
		a, err := trim(ctx, texts.A)
		if err != nil {
			return nil, err
		}
		b, err := trim(ctx, texts.B)
		if err != nil {
			return nil, err
		}
		first, second := a.(trimmed), b.(trimmed)
		response := concatResponse{
			V:         first.text + second.text,
			instances: first.instance + "," + second.instance,
		}
		if response.V == "" {
			response.Err = "both texts are empty"
		}
		return response, nil
	}
}

func decodeConcat(_ context.Context, request *http.Request) (any, error) {
	var body concatRequest
	err := json.NewDecoder(request.Body).Decode(&body)
	return body, err
}
