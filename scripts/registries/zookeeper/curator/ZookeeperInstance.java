package org.springframework.cloud.zookeeper.discovery;

import java.util.HashMap;
import java.util.Map;

/** A payload with the name and the members of Spring Cloud's, so that Curator reads and writes it. */
public class ZookeeperInstance {
    public String id;
    public String name;
    public Map<String, String> metadata = new HashMap<>();
}
