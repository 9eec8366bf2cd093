package discovery;

import java.util.Map;
import java.util.TreeMap;
import org.apache.curator.framework.CuratorFramework;
import org.apache.curator.framework.CuratorFrameworkFactory;
import org.apache.curator.retry.RetryOneTime;
import org.apache.curator.x.discovery.ServiceDiscovery;
import org.apache.curator.x.discovery.ServiceDiscoveryBuilder;
import org.apache.curator.x.discovery.ServiceInstance;
import org.springframework.cloud.zookeeper.discovery.ZookeeperInstance;

/**
 * Curator's service discovery as a program, to test that other clients read its nodes and it theirs.
 *
 * <pre>
 * list     SERVER BASE NAME PAYLOAD                  prints ID ADDRESS PORT PAYLOAD of each instance
 * register SERVER BASE NAME PAYLOAD ID ADDRESS PORT  registers, prints "registered", and stays until it
 *                                                    is killed
 * </pre>
 *
 * PAYLOAD is {@code spring} (a class like Spring Cloud's), {@code map} or {@code none}.
 */
public final class CuratorPeer {
    private CuratorPeer() {}

    public static void main(String[] arguments) throws Exception {
        CuratorFramework client =
                CuratorFrameworkFactory.newClient(arguments[1], 4000, 20000, new RetryOneTime(500));
        client.start();
        switch (arguments[4]) {
            case "spring" -> run(client, ZookeeperInstance.class, spring(), arguments);
            case "map" -> run(client, Object.class, new TreeMap<>(Map.of("zone", "z1")), arguments);
            default -> run(client, Void.class, null, arguments);
        }
        client.close();
    }

    private static ZookeeperInstance spring() {
        ZookeeperInstance payload = new ZookeeperInstance();
        payload.id = "trim_service";
        payload.name = "trim_service";
        payload.metadata.put("zone", "z1");
        payload.metadata.put("instance_status", "UP");
        return payload;
    }

    private static <T> void run(
            CuratorFramework client, Class<T> type, T payload, String[] arguments) throws Exception {
        try (ServiceDiscovery<T> discovery =
                ServiceDiscoveryBuilder.builder(type).client(client).basePath(arguments[2]).build()) {
            discovery.start();
            if (arguments[0].equals("list")) {
                for (ServiceInstance<T> found : discovery.queryForInstances(arguments[3])) {
                    System.out.println(found.getId() + " " + found.getAddress() + " " + found.getPort()
                            + " " + text(found.getPayload()));
                }
                return;
            }
            discovery.registerService(ServiceInstance.<T>builder()
                    .name(arguments[3])
                    .id(arguments[5])
                    .address(arguments[6])
                    .port(Integer.parseInt(arguments[7]))
                    .payload(payload)
                    .build());
            System.out.println("registered");
            Thread.currentThread().join();
        }
    }

    private static String text(Object payload) {
        if (payload instanceof ZookeeperInstance) {
            return new TreeMap<>(((ZookeeperInstance) payload).metadata).toString();
        }
        return payload instanceof Map ? new TreeMap<>((Map<?, ?>) payload).toString() : "none";
    }
}
