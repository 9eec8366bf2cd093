package discovery;

import jakarta.servlet.Filter;
import jakarta.servlet.http.HttpServletRequest;
import jakarta.servlet.http.HttpServletResponse;
import java.nio.charset.StandardCharsets;
import java.util.Base64;
import org.springframework.boot.SpringApplication;
import org.springframework.boot.autoconfigure.EnableAutoConfiguration;
import org.springframework.boot.web.servlet.FilterRegistrationBean;
import org.springframework.cloud.netflix.eureka.server.EnableEurekaServer;
import org.springframework.context.annotation.Bean;
import org.springframework.core.Ordered;
import org.springframework.core.env.Environment;

/**
 * A Eureka server. With the property {@code credentials=USER:PASSWORD} it requires them by HTTP Basic
 * authentication.
 */
@EnableAutoConfiguration
@EnableEurekaServer
public class EurekaServer {
    public static void main(String[] arguments) {
        SpringApplication.run(EurekaServer.class, arguments);
    }

    @Bean
    FilterRegistrationBean<Filter> authentication(Environment settings) {
        String credentials = settings.getProperty("credentials");
        String expected = credentials == null
                ? null
                : "Basic " + Base64.getEncoder().encodeToString(credentials.getBytes(StandardCharsets.UTF_8));
        Filter filter = (request, response, next) -> {
            String given = ((HttpServletRequest) request).getHeader("Authorization");
            if (expected == null || expected.equals(given)) {
                next.doFilter(request, response);
            } else {
                HttpServletResponse refusal = (HttpServletResponse) response;
                refusal.setHeader("WWW-Authenticate", "Basic realm=\"eureka\"");
                refusal.sendError(HttpServletResponse.SC_UNAUTHORIZED);
            }
        };
        FilterRegistrationBean<Filter> registration = new FilterRegistrationBean<>(filter);
        // Before the filter that answers the requests of Eureka's API.
        registration.setOrder(Ordered.HIGHEST_PRECEDENCE);
        return registration;
    }
}
