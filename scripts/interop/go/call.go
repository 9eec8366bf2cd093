package main

import (
	"context"
	"fmt"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/encoding/gzip"
	"google.golang.org/grpc/interop"
	testgrpc "google.golang.org/grpc/interop/grpc_testing"
)

// limit bounds a case, however often it is repeated.
const limit = time.Minute

// call runs a case of grpc-go's own client so many times over one connection. The functions of the
// package interop end the process if they fail.
func call(address, name string, times int) error {
	connection, err := grpc.NewClient(address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return err
	}
	defer connection.Close()
	client := testgrpc.NewTestServiceClient(connection)
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	for range times {
		switch name {
		case "empty_unary":
			interop.DoEmptyUnaryCall(ctx, client)
		case "large_unary":
			interop.DoLargeUnaryCall(ctx, client)
		case "large_unary_gzip":
			interop.DoLargeUnaryCall(ctx, client, grpc.UseCompressor(gzip.Name))
		case "client_streaming":
			interop.DoClientStreaming(ctx, client)
		case "server_streaming":
			interop.DoServerStreaming(ctx, client)
		case "ping_pong":
			interop.DoPingPong(ctx, client)
		case "ping_pong_gzip":
			interop.DoPingPong(ctx, client, grpc.UseCompressor(gzip.Name))
		case "empty_stream":
			interop.DoEmptyStream(ctx, client)
		case "custom_metadata":
			interop.DoCustomMetadata(ctx, client)
		case "status_code_and_message":
			interop.DoStatusCodeAndMessage(ctx, client)
		case "special_status_message":
			interop.DoSpecialStatusMessage(ctx, client)
		case "unimplemented_method":
			interop.DoUnimplementedMethod(ctx, connection)
		case "unimplemented_service":
			interop.DoUnimplementedService(ctx, testgrpc.NewUnimplementedServiceClient(connection))
		case "cancel_after_begin":
			interop.DoCancelAfterBegin(ctx, client)
		case "cancel_after_first_response":
			interop.DoCancelAfterFirstResponse(ctx, client)
		case "timeout_on_sleeping_server":
			interop.DoTimeoutOnSleepingServer(ctx, client)
		default:
			return fmt.Errorf("unknown case %q", name)
		}
	}
	return nil
}
