package main

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/reflection/grpc_reflection_v1"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/descriptorpb"
)

// standard runs a case of the services that every server has: health and reflection.
func standard(address, name, service string) error {
	connection, err := grpc.NewClient(address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return err
	}
	defer connection.Close()
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	switch name {
	case "health_check":
		return healthCheck(ctx, connection, service)
	case "health_watch":
		return healthWatch(ctx, connection, service, grpc_health_v1.HealthCheckResponse_SERVING)
	case "health_watch_unknown":
		return healthWatch(ctx, connection, "no."+service, grpc_health_v1.HealthCheckResponse_SERVICE_UNKNOWN)
	case "reflection_list":
		return reflectionList(ctx, connection, service)
	case "reflection_file":
		return reflectionFile(ctx, connection, service)
	}
	return fmt.Errorf("unknown case %q", name)
}

// healthCheck expects SERVING of the server and of its service, and NOT_FOUND of an unknown one.
func healthCheck(ctx context.Context, connection *grpc.ClientConn, service string) error {
	client := grpc_health_v1.NewHealthClient(connection)
	for _, known := range []string{"", service} {
		answer, err := client.Check(ctx, &grpc_health_v1.HealthCheckRequest{Service: known})
		if err != nil {
			return fmt.Errorf("Check(%q): %w", known, err)
		}
		if answer.Status != grpc_health_v1.HealthCheckResponse_SERVING {
			return fmt.Errorf("Check(%q) is %v, want SERVING", known, answer.Status)
		}
	}
	_, err := client.Check(ctx, &grpc_health_v1.HealthCheckRequest{Service: "no." + service})
	if status.Code(err) != codes.NotFound {
		return fmt.Errorf("Check of an unknown service: %v, want NOT_FOUND", err)
	}
	return nil
}

// healthWatch expects a first answer, and that the stream stays open until it is cancelled.
func healthWatch(
	ctx context.Context, connection *grpc.ClientConn, service string,
	want grpc_health_v1.HealthCheckResponse_ServingStatus,
) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := grpc_health_v1.NewHealthClient(connection).
		Watch(ctx, &grpc_health_v1.HealthCheckRequest{Service: service})
	if err != nil {
		return err
	}
	answer, err := stream.Recv()
	if err != nil {
		return fmt.Errorf("Watch(%q): %w", service, err)
	}
	if answer.Status != want {
		return fmt.Errorf("Watch(%q) is %v, want %v", service, answer.Status, want)
	}
	cancel()
	if _, err := stream.Recv(); status.Code(err) != codes.Canceled {
		return fmt.Errorf("Watch(%q) ended with %v, want an open stream", service, err)
	}
	return nil
}

// ask makes one request of reflection.
func ask(
	ctx context.Context, connection *grpc.ClientConn, request *grpc_reflection_v1.ServerReflectionRequest,
) (*grpc_reflection_v1.ServerReflectionResponse, error) {
	stream, err := grpc_reflection_v1.NewServerReflectionClient(connection).ServerReflectionInfo(ctx)
	if err != nil {
		return nil, err
	}
	if err := stream.Send(request); err != nil {
		return nil, err
	}
	answer, err := stream.Recv()
	if err != nil {
		return nil, err
	}
	return answer, stream.CloseSend()
}

// reflectionList expects the service and health in the list.
func reflectionList(ctx context.Context, connection *grpc.ClientConn, service string) error {
	answer, err := ask(ctx, connection, &grpc_reflection_v1.ServerReflectionRequest{
		MessageRequest: &grpc_reflection_v1.ServerReflectionRequest_ListServices{},
	})
	if err != nil {
		return err
	}
	var names []string
	for _, listed := range answer.GetListServicesResponse().GetService() {
		names = append(names, listed.Name)
	}
	for _, want := range []string{service, "grpc.health.v1.Health"} {
		if !slices.Contains(names, want) {
			return fmt.Errorf("the list %q has no %q", names, want)
		}
	}
	return nil
}

// reflectionFile expects a readable file that defines the service.
func reflectionFile(ctx context.Context, connection *grpc.ClientConn, service string) error {
	answer, err := ask(ctx, connection, &grpc_reflection_v1.ServerReflectionRequest{
		MessageRequest: &grpc_reflection_v1.ServerReflectionRequest_FileContainingSymbol{
			FileContainingSymbol: service,
		},
	})
	if err != nil {
		return err
	}
	for _, encoded := range answer.GetFileDescriptorResponse().GetFileDescriptorProto() {
		var file descriptorpb.FileDescriptorProto
		if err := proto.Unmarshal(encoded, &file); err != nil {
			return err
		}
		for _, defined := range file.GetService() {
			if file.GetPackage()+"."+defined.GetName() == service {
				return nil
			}
		}
	}
	return errors.New("no file defines " + service)
}
