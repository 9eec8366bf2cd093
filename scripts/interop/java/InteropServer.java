// Serves grpc-java's own interop test service on free ports of 127.0.0.1, and prints what calls do.
//
// The service is `TestServiceImpl` of io.grpc:grpc-interop-testing. Its own main class,
// `TestServiceServer`, takes a fixed port only and prints nothing about its calls.

import io.grpc.ForwardingServerCall.SimpleForwardingServerCall;
import io.grpc.ForwardingServerCallListener.SimpleForwardingServerCallListener;
import io.grpc.InsecureServerCredentials;
import io.grpc.Metadata;
import io.grpc.ServerCall;
import io.grpc.ServerCallHandler;
import io.grpc.ServerInterceptor;
import io.grpc.ServerInterceptors;
import io.grpc.netty.shaded.io.grpc.netty.NettyServerBuilder;
import io.grpc.testing.integration.Messages.StreamingOutputCallRequest;
import io.grpc.testing.integration.TestServiceImpl;
import java.net.InetSocketAddress;
import java.util.concurrent.ConcurrentLinkedQueue;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.Executors;

public final class InteropServer {
    /** Prints the beginning and the cancellation of each call that has a stream. */
    private static final ServerInterceptor REPORT = new ServerInterceptor() {
        @Override
        public <Q, A> ServerCall.Listener<Q> interceptCall(
                ServerCall<Q, A> call, Metadata headers, ServerCallHandler<Q, A> next) {
            var method = call.getMethodDescriptor();
            var listener = next.startCall(call, headers);
            if (method.getType().clientSendsOneMessage() && method.getType().serverSendsOneMessage()) {
                return listener;
            }
            print("begun /" + method.getFullMethodName());
            return new SimpleForwardingServerCallListener<Q>(listener) {
                @Override
                public void onCancel() {
                    super.onCancel();
                    print("cancelled /" + method.getFullMethodName());
                }
            };
        }
    };

    /**
     * Compresses the messages of StreamingOutputCall that ask for it. grpc-java can do that, but its test
     * service reads the wish of unary calls only.
     */
    private static final ServerInterceptor COMPRESS = new ServerInterceptor() {
        @Override
        public <Q, A> ServerCall.Listener<Q> interceptCall(
                ServerCall<Q, A> call, Metadata headers, ServerCallHandler<Q, A> next) {
            if (!call.getMethodDescriptor().getBareMethodName().equals("StreamingOutputCall")) {
                return next.startCall(call, headers);
            }
            var wishes = new ConcurrentLinkedQueue<Boolean>();
            var compressing = new SimpleForwardingServerCall<Q, A>(call) {
                @Override
                public void sendHeaders(Metadata metadata) {
                    setCompression("gzip");
                    super.sendHeaders(metadata);
                }

                @Override
                public void sendMessage(A message) {
                    setMessageCompression(Boolean.TRUE.equals(wishes.poll()));
                    super.sendMessage(message);
                }
            };
            return new SimpleForwardingServerCallListener<Q>(next.startCall(compressing, headers)) {
                @Override
                public void onMessage(Q request) {
                    for (var wish : ((StreamingOutputCallRequest) request).getResponseParametersList()) {
                        wishes.add(wish.getCompressed().getValue());
                    }
                    super.onMessage(request);
                }
            };
        }
    };

    private static synchronized void print(String line) {
        System.out.println(line);
        System.out.flush();
    }

    public static void main(String[] arguments) throws Exception {
        var executor = Executors.newSingleThreadScheduledExecutor();
        var listening = new StringBuilder("listening");
        for (int left = Integer.parseInt(arguments[0]); left > 0; left--) {
            var service = ServerInterceptors.intercept(
                    new TestServiceImpl(executor), TestServiceImpl.interceptors());
            var server = NettyServerBuilder
                    .forAddress(new InetSocketAddress("127.0.0.1", 0), InsecureServerCredentials.create())
                    .addService(service)
                    .intercept(COMPRESS)
                    .intercept(REPORT)
                    .build()
                    .start();
            listening.append(" 127.0.0.1:").append(server.getPort());
        }
        print(listening.toString());
        // The servers' threads do not keep the process alive.
        new CountDownLatch(1).await();
    }
}
